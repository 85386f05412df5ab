#!/bin/sh
# roost-tmux-agent [PID]: let one link point to the ssh agent of the newest connection: that of the
# process PID (the tmux client that has just been attached), else our own. tmux's windows know the
# link alone, so they reach the new agent too. Managed by roost.
set -eu
link=$HOME/.local/state/roost/agent-$(uname -n)
if [ $# -gt 0 ]; then
    agent=$(tr '\0' '\n' <"/proc/$1/environ" | sed -n 's/^SSH_AUTH_SOCK=//p')
else
    agent=${SSH_AUTH_SOCK-}
fi
# Whoever comes without an agent takes nobody's away.
if [ "$agent" = "$link" ] || [ ! -S "$agent" ]; then
    exit 0
fi
(umask 077 && mkdir -p "${link%/*}")
ln -s "$agent" "$link.$$"
mv -fT "$link.$$" "$link"
