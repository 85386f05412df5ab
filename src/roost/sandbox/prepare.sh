# Make a base image into a box that is as bare as a cloud image: systemd, sshd, a default user
# with sudo, and no full Python. Read by "sh -s" as root in a container of the base image.
#
# Set by the lines that roost puts in front:
#   box_user           the default user
#   box_packages       the packages that the box has to have
#   box_sources        the package archives (sources.list(5)); empty: those of the base image
#   box_certificates   certificates to trust, as PEM, one after another; may be empty
#   box_index          the Python package index; empty: the public one
# shellcheck shell=sh disable=SC2154
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# What the makers of container images add to keep them small; a real machine has none of it.
rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-*

if [ -n "$box_sources" ]; then
    rm -f /etc/apt/sources.list.d/*
    printf '%s\n' "$box_sources" >/etc/apt/sources.list
fi

missing=
for package in $box_packages; do
    case $(dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null) in
    *' installed') ;;
    *) missing="$missing $package" ;;
    esac
done
if [ -n "$missing" ]; then
    apt-get update -qq
    # The list is split into words on purpose.
    # shellcheck disable=SC2086
    apt-get install -qq --yes --no-install-recommends $missing
fi
apt-get clean
rm -rf /var/lib/apt/lists/*

if ! id "$box_user" >/dev/null 2>&1; then
    useradd --create-home --shell /bin/bash --user-group "$box_user"
fi
usermod --append --groups adm,sudo "$box_user"
printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$box_user" >/etc/sudoers.d/90-default-user
chmod 0440 /etc/sudoers.d/90-default-user
visudo --check --quiet

if [ -n "$box_certificates" ]; then
    printf '%s\n' "$box_certificates" | awk '
        /-----BEGIN/ { file = "/usr/local/share/ca-certificates/machine-" ++count ".crt" }
        file != ""   { print > file }
        /-----END/   { close(file); file = "" }'
    update-ca-certificates >/dev/null
fi
if [ -n "$box_index" ]; then
    mkdir -p /etc/uv
    printf '[global]\nindex-url = %s\n' "$box_index" >/etc/pip.conf
    printf '[[index]]\nurl = "%s"\ndefault = true\n' "$box_index" >/etc/uv/uv.toml
fi

# Every box makes host keys and a machine id of its own when it boots first.
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub /var/lib/dbus/machine-id
: >/etc/machine-id
cat >/etc/systemd/system/ssh-host-keys.service <<'UNIT'
[Unit]
Description=Make the ssh host keys that are missing
Before=ssh.service ssh.socket sshd.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable --quiet ssh-host-keys.service
# In a container with the old cgroup hierarchy nobody tells systemd that a group is empty, so
# that the end of a user's last session takes twice this time, and their next login waits for it.
mkdir -p /etc/systemd/system/user@.service.d
printf '[Service]\nTimeoutStopSec=1s\n' >/etc/systemd/system/user@.service.d/container.conf
# The console of a container is its log: a login prompt there waits for nobody.
systemctl mask --quiet console-getty.service
