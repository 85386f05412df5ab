# Point apt to a proxy or a mirror, or back to the distribution's own; works without Python.
# $1: apply or check, $2: proxy, $3: mirror, $4: security mirror, $5: ID, $6: code name.
# Writes "changed: FILE" for each file that differs.
mode=$1 proxy=$2 mirror=$3 security=$4 id=$5 codename=$6
parts=/etc/apt/sources.list.d
keyring=/usr/share/keyrings/$id-archive-keyring.gpg

place() { # FILE CONTENT; an empty content removes it
  [ "$(cat "$1" 2>/dev/null)" = "$2" ] && return
  echo "changed: $1"
  [ "$mode" = check ] && return
  if [ -z "$2" ]; then
    rm -f "$1"
  else
    printf '%s\n' "$2" >"$1.roost-new" && chmod 0644 "$1.roost-new" && mv "$1.roost-new" "$1"
  fi
}

shelve() { # FILE: out of apt's sight; apt ignores *.disabled silently
  [ -e "$1" ] || return
  echo "changed: $1"
  [ "$mode" = check ] || mv "$1" "$1.disabled"
}

unshelve() {
  [ -e "$1.disabled" ] && [ -e "$parts/roost.sources" ] || return
  echo "changed: $1"
  [ "$mode" = check ] || mv "$1.disabled" "$1"
}

source_block() { # URI SUITES COMPONENTS
  [ -z "$1" ] || printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n\n' \
    "$1" "$2" "$3" "$keyring"
}

own_security() { # the security archive that the distribution's own sources name, if any
  copies=$(mktemp -d) || return
  for file in $own; do
    for there in "$file" "$file.disabled"; do
      [ ! -e "$there" ] || cp "$there" "$copies/${file##*/}"
    done
  done
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE)' \
    -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$copies" \
    | awk '$2 ~ /-security$/ { sub("/$", "", $1); print $1; exit }'
  rm -r "$copies"
}

proxy_text=
if [ -n "$proxy" ]; then
  proxy_text="Acquire::http::Proxy \"$proxy\";
Acquire::https::Proxy \"$proxy\";"
fi
place /etc/apt/apt.conf.d/01roost-proxy "$proxy_text"

own="/etc/apt/sources.list $parts/$id.sources"
if [ -z "$mirror" ]; then
  for file in $own; do unshelve "$file"; done
  place "$parts/roost.sources" ""
  exit 0
fi
if [ "$id" = ubuntu ]; then
  components="main restricted universe multiverse"
  : "${security:=$mirror}"
else
  components="main"
  : "${security:=$(own_security)}"
fi
place "$parts/roost.sources" "$(
  source_block "$mirror" "$codename $codename-updates" "$components"
  source_block "$security" "$codename-security" "$components"
)"
for file in $own; do shelve "$file"; done
exit 0
