# What the role has to know of a box that may have no Python yet, as one line of JSON.
# $1: seconds to wait for cloud-init.
waited=0
# cloud-init writes result.json when its last stage is done, and "disabled" where it never runs.
while [ -d /run/cloud-init ] && command -v cloud-init >/dev/null \
  && [ ! -e /run/cloud-init/result.json ] && [ ! -e /run/cloud-init/disabled ] \
  && [ "$waited" -lt "$1" ]; do
  sleep 1
  waited=$((waited + 1))
done
. /etc/os-release
free_mb() { df -Pm "$1" | awk 'NR == 2 { print $4 }'; }
python=false
# python3-minimal lacks much of the standard library; shutil is what modules miss first.
python3 -c 'import apt_pkg, shutil' 2>/dev/null && python=true
ours=false
[ -e /etc/apt/apt.conf.d/01roost-proxy ] && ours=true
[ -e /etc/apt/sources.list.d/roost.sources ] && ours=true
locale_file=$(readlink -f /etc/default/locale)
lang=$(sed -n 's/^LANG="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$locale_file" 2>/dev/null | tail -n 1)
timezone=$(readlink /etc/localtime | sed 's|.*/zoneinfo/||')
certificates=
for file in /usr/local/share/ca-certificates/roost-*.crt; do
  [ -e "$file" ] && certificates="$certificates, \"$file\""
done
printf '{"id": "%s", "version": "%s", "name": "%s", "codename": "%s", "python": %s' \
  "$ID" "${VERSION_ID:-}" "$PRETTY_NAME" "${VERSION_CODENAME:-}" "$python"
printf ', "free_root": %s, "free_var": %s, "apt_is_ours": %s, "locale_file": "%s"' \
  "$(free_mb /)" "$(free_mb /var)" "$ours" "$locale_file"
printf ', "lang": "%s", "timezone": "%s", "certificates": [%s]}\n' \
  "$lang" "$timezone" "${certificates#, }"
