"""Recognise why a step of a run failed, and say what to do about it.

The patterns are the wording of OpenSSH's client, of apt and of Ansible's own modules, in the
C locale that Ansible runs them in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from roost.events import Event


@dataclass(frozen=True)
class Explanation:
    """A failure in words: what happened, and the command or step that mends it."""

    what: str
    fix: str


# Each: a pattern for the module's message and output, what happened, what to do.
# {box} is the box; {1} is the pattern's first group. The first that matches is taken.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        # Before what ssh said in that login: the box itself is in order.
        r"With the new configuration of sshd no new login as (\S+)",
        "with the new configuration of sshd {1} could not log in anew and become root; the former "
        "configuration is back and works",
        "see what is new: roost up {box} --tags sshd --check --diff",
    ),
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that was pinned",
        "find out why before you go on; if {box} was rebuilt: roost add {box} --renew-host-key",
    ),
    (
        r"Host key verification failed|No \S+ host key is known",
        "its host key is not pinned yet",
        "pin it: roost add {box} USER@HOST",
    ),
    (
        r"Permission denied \(([^)]*)\)",
        "it refuses our key (it offers: {1})",
        "try it by hand: ssh -v {box}; install the key: roost add {box} USER@HOST",
    ),
    (
        r"Could not resolve hostname (\S+?):",
        "the name {1} is not known to the DNS",
        "correct ansible_host of {box} in the inventory, or your DNS or VPN",
    ),
    (
        # In ssh's own words: programs on the box say that of other machines.
        r"connect to (?:host|address) \S+ port \d+: (?:Connection timed out|Operation timed out"
        r"|No route to host|Network is unreachable|Host is down)"
        r"|Connection timed out during banner exchange|Connection to \S+ port \d+ timed out",
        "nothing answers at its address",
        "is the machine on, and are you in its network (VPN, gateway: roost_via)?",
    ),
    (
        r"connect to (?:host|address) \S+ port \d+: Connection refused",
        "the machine answers, but no sshd listens on that port",
        "check ansible_port of {box}, or start sshd from the provider's console",
    ),
    (
        r"(?:Missing|Incorrect|incorrect) sudo password|a password is required",
        "sudo asks for a password",
        "run it again with --ask-become-pass",
    ),
    (
        r"is not in the sudoers file|may not run sudo",
        "the login user may not become root",
        "log in as a user with sudo (ansible_user of {box}), or give it the right on the box",
    ),
    (
        r"No space left on device|don't have enough free space|ENOSPC|Disk quota exceeded",
        "its disk is full",
        "see what takes the space: roost ssh {box} -- df -h",
    ),
    (
        r"(?:Unable to acquire the dpkg frontend lock|Could not get lock|lock-frontend"
        r"|Failed to lock apt)",
        "another program holds apt's lock (cloud-init or an automatic upgrade, as a rule)",
        "wait until it is done and run it again: roost ssh {box} -- pgrep -a 'apt|dpkg'",
    ),
    (
        r"dpkg was interrupted",
        "an earlier installation was cut off in the middle",
        "roost ssh {box} -- sudo dpkg --configure -a",
    ),
    (
        r"Release file for (\S+) is not valid yet",
        "its clock is wrong, so that it rejects the package archive",
        "set the clock: roost ssh {box} -- timedatectl",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|UnknownIssuer"
        r"|certificate is NOT trusted",
        "it does not trust the certificate of a server (a company proxy that inspects TLS?)",
        "give the proxy's CA certificate to the boxes: base_ca_certificates in the inventory",
    ),
    (
        r"Decryption failed|no vault secrets|Attempting to decrypt but no vault|vault password",
        "a value of the inventory is encrypted, and the vault password is missing or a wrong one",
        "name it as Ansible does: export ANSIBLE_VAULT_PASSWORD_FILE=FILE",
    ),
    (
        r"runs ([^\n]*?), which is not supported\. The roles are",
        "it runs {1}, which is not supported",
        "use Ubuntu 22.04, 24.04 or 26.04, or Debian 12 or 13",
    ),
    (
        r"Release file for (\S+) is expired",
        "the archive {1} has not been renewed, or the clock of the box is ahead",
        "see its clock: roost ssh {box} -- timedatectl; or use another mirror: base_apt_mirror",
    ),
    (
        r"repository '([^']+)' is not signed|NO_PUBKEY (\S+)|(?:EXPKEYSIG|BADSIG) (\S+)"
        r"|signatures? (?:could ?n[o']t be verified|were invalid)",
        "apt does not trust the signature of an archive ({1})",
        "install the archive's key, or take it out: roost ssh {box} -- ls /etc/apt/sources.list.d",
    ),
    (
        r"Hash Sum mismatch|File has unexpected size",
        "what the archive sent is not what its index says (a mirror in mid-update, or a proxy)",
        "run it again in some minutes, or use another mirror: base_apt_mirror",
    ),
    # Before what has no solution: pip says that of an index that does not answer, too.
    (
        r"(?:Failed to fetch|error sending request for url|Request failed after).*?(?:simple|pypi)"
        r"|Could not fetch URL|HTTPS?ConnectionPool|Failed to establish a new connection",
        "the index of Python packages cannot be reached from the box",
        "see what it reaches: roost doctor {box}; set base_pypi_index if it needs a mirror",
    ),
    (
        r"No matching distribution found for (\S+)|ResolutionImpossible"
        r"|No solution found when resolving|cannot be resolved|are unsatisfiable",
        "the Python requirements have no solution (see what they ask for: -v)",
        "correct the requirements in the inventory, or the index that they come from",
    ),
    (
        r"Temporary failure resolving '?([\w.-]+)|Could not resolve '?([\w.-]+)",
        "it cannot resolve the name {1}, so that it has no way to the package archive",
        "check its DNS: roost ssh {box} -- resolvectl status",
    ),
    (
        r"Failed to update apt cache|Failed to fetch|Unable to connect to|Could not connect to"
        r"|unreachable network|Connection failed \[IP",
        "the package archive cannot be reached from the box",
        "does the box have a way out? Set base_apt_mirror or base_apt_proxy if it needs one",
    ),
    (
        r"Unable to locate package (\S+)|No package matching '(\S+?)' is available",
        "its package archive has no package {1}",
        "is the release still supported, and its archive complete? roost ssh {box} -- apt policy",
    ),
    (
        r"/bin/sh: 1: (?:\S*python\S*): not found|module interpreter .* was not found"
        r"|No module named '(?:shutil|json|ctypes)'|python3?: (?:command )?not found",
        "it has no complete Python",
        "run the whole playbook: its first role installs it (roost up {box}, without --tags)",
    ),
    (
        # "Killed" is what a shell says of a child that the kernel ended.
        r"Out of memory|oom-kill|Cannot allocate memory|\bKilled\b|MemoryError",
        "it ran out of memory",
        "give it more memory or swap, or end what fills it: roost ssh {box} -- free -h",
    ),
    (
        r"Destination (\S+) not writable",
        "{1} cannot be written: the right is missing, or its file system is read-only",
        "see which: roost ssh {box} -- findmnt -T {1}",
    ),
    (
        r"Read-only file system",
        "a file system on it is read-only (a failing disk, as a rule)",
        "see why: roost ssh {box} -- sudo dmesg",
    ),
    (
        # Not "Shared connection closed": with a terminal, ssh says that at every end.
        r"Connection (?:reset|closed) by|Broken pipe|client_loop: send disconnect"
        r"|Data could not be sent to remote host",
        "the connection broke off",
        "run it again: it goes on where it stopped",
    ),
)


def explain(event: Event) -> Explanation | None:
    """What the failure is, or None where nobody recognises it."""
    text = f"{event.message}\n{event.detail}"
    for pattern, what, fix in _KNOWN:
        match = re.search(pattern, text)
        if match:
            group = next((g for g in match.groups() if g), "") if match.groups() else ""
            fill = {"box": event.box}
            return Explanation(
                what.replace("{1}", group).format(**fill), fix.replace("{1}", group).format(**fill)
            )
    return None
