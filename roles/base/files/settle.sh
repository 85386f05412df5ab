# Bring the running system in line with the files of the role.
# $1: apply or check, $2: earlyoom or none, $3: a locale to generate, or nothing.
# Writes "changed: WHAT" for each thing that differed.
set -e
mode=$1 guard=$2 locale=$3
dropin=/etc/systemd/system/earlyoom.service.d/50-roost.conf

differs() { # WHAT COMMAND...
  echo "changed: $1"
  shift
  [ "$mode" = check ] || "$@"
}

has_guard() { [ -e /usr/lib/systemd/system/earlyoom.service ]; }

since_start() { # seconds since the epoch at which the unit started, 0 if it does not run
  date +%s -d "$(systemctl show -P ActiveEnterTimestamp "$1")" 2>/dev/null || echo 0
}

if systemctl show -P NeedDaemonReload ssh.service earlyoom.service 'user-*.slice' | grep -q yes
then
  differs "units of systemd" systemctl daemon-reload
fi

if [ "$guard" = earlyoom ] && has_guard; then
  systemctl is-enabled -q earlyoom || differs "earlyoom enabled" systemctl -q enable earlyoom
  # Its drop-in says that it does not run in a container, whose memory is the host's.
  if systemd-detect-virt -cq; then
    :
  elif ! systemctl is-active -q earlyoom; then
    differs "earlyoom started" systemctl start earlyoom
  elif [ "$(since_start earlyoom)" -lt "$(stat -c %Y "$dropin")" ]; then
    differs "earlyoom restarted" systemctl restart earlyoom
  fi
elif has_guard && systemctl is-enabled -q earlyoom; then
  differs "earlyoom disabled" systemctl -q disable --now earlyoom
fi

generate_locale() {
  sed -i "/^# *$locale /s/^# *//" /etc/locale.gen
  grep -q "^$locale " /etc/locale.gen || echo "$locale ${locale#*.}" >>/etc/locale.gen
  locale-gen "$locale" >/dev/null
}

canonical() { tr '[:upper:]' '[:lower:]' | tr -d -; }

if [ -n "$locale" ]; then
  locale -a | canonical | grep -qx "$(echo "$locale" | canonical)" \
    || differs "locale $locale" generate_locale
fi
