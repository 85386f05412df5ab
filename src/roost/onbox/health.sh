# shellcheck shell=sh
# What a box says of itself, one KEY VALUE... a line. POSIX sh, since a bare box has no Python.
# Bytes and seconds, so that nothing has to be guessed on the other side.
export LC_ALL=C
IFS=' ' read -r up _ </proc/uptime && echo "uptime $up"
IFS=' ' read -r load _ </proc/loadavg && echo "load $load"
echo "cpus $(getconf _NPROCESSORS_ONLN)"
awk '/^MemTotal:/ { t = $2 } /^MemAvailable:/ { a = $2 }
    END { printf "memory %.0f %.0f\n", t * 1024, a * 1024 }' /proc/meminfo
df -Pk / "$HOME" /srv /data 2>/dev/null | awk 'NR > 1 && !seen[$6]++ {
    printf "disk %.0f %.0f %s\n", $2 * 1024, $4 * 1024, $6 }'
who | awk '{ print "user", $1 }' | sort -u
command -v nvidia-smi >/dev/null 2>&1 &&
    nvidia-smi --format=csv,noheader,nounits \
        --query-gpu=utilization.gpu,memory.total,memory.used,name 2>/dev/null |
    sed 's/,//; s/,//; s/,//; s/^/gpu /'
echo "lab $(systemctl is-active "roost-jupyter@$(id -un)" 2>/dev/null)"
[ -e /run/reboot-required ] && echo "reboot yes"
# Simulated, as nobody in particular: from the lists that are there.
apt-get -s -qq -o Debug::NoLocking=true upgrade 2>/dev/null |
    awk '/^Inst / { n++ } /^Inst .*[-Ss]ecurity/ { s++ } END { print "updates", n + 0, s + 0 }'
