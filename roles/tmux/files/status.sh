#!/bin/sh
# Load, memory and GPUs on one line, for tmux's status line. Managed by roost.
read -r load _ </proc/loadavg
memory=$(awk '
    /^MemTotal:/ { total = $2 }
    /^MemAvailable:/ { free = $2 }
    END { printf "%.1f/%.0fG", (total - free) / 1048576, total / 1048576 }' /proc/meminfo)
printf 'load %s  mem %s' "$load" "$memory"
if command -v nvidia-smi >/dev/null; then
    # A driver that hangs must not hold the status line up.
    timeout 2 nvidia-smi --query-gpu=utilization.gpu,memory.used,memory.total \
        --format=csv,noheader,nounits 2>/dev/null |
        awk -F', *' '{ printf "  gpu%d %d%% %.1f/%.0fG", NR - 1, $1, $2 / 1024, $3 / 1024 }'
fi
