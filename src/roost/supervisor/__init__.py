"""The background process that keeps tunnels open: one per user, only while there are any.

``roost.tunnels`` is its client. It imports neither Ansible nor anything that draws: it stays
small because it runs all day. OpenSSH carries the bytes; this process starts ssh, asks through
the tunnel whether it is alive, and starts it again.
"""
