#!/bin/sh
# Make this checkout ready to run, quickly where it is ready already:
#
#     tools/bootstrap.sh setup   the .venv, with the tests and the linters in it
#     tools/bootstrap.sh lint    the same, and what the linters need of the system
#     tools/bootstrap.sh demo    the .venv with the project alone, and what the demo needs
#     tools/bootstrap.sh bench   the tests' .venv, and what the measurements compare with
#     tools/bootstrap.sh test    everything
#
# System packages are installed on Debian and Ubuntu, as root or with password-less sudo. Where
# that may not be done, one message says what is missing and how to install it.
set -eu

main() {
    cd "$(dirname "$0")/.."
    missing=
    group=dev
    case ${1-} in
    setup) ;;
    lint) need shellcheck shellcheck ;;
    demo)
        group=
        need_to_run
        ;;
    bench)
        need autossh autossh
        need_to_run
        ;;
    test)
        [ "$(id -u)" = 0 ] ||
            fail "the tests give boxes networks of their own, fill file systems and become other" \
                "users, which needs root: sudo make test"
        need shellcheck shellcheck
        need strace strace
        need curl curl
        need ip iproute2
        need iptables iptables
        need openssl openssl
        need_to_run
        need_browsers
        ;;
    *) fail "usage: tools/bootstrap.sh setup|lint|demo|bench|test" ;;
    esac
    pick_python
    install_packages
    make_venv
}

say() {
    printf 'bootstrap: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# need PROGRAM PACKAGE...: remember the packages where the program is not there.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    shift
    missing="$missing $*"
}

need_to_run() {
    need ssh openssh-client
    need rsync rsync
    need tmux tmux
    if ! engine_works; then
        # What podman cannot start a container without; Debian only recommends some of it.
        missing="$missing podman runc crun netavark aardvark-dns iptables"
        need mmdebstrap mmdebstrap debian-archive-keyring
    elif ! boxes_can_start; then
        missing="$missing runc"
    elif ! can_pull; then
        need mmdebstrap mmdebstrap debian-archive-keyring
    fi
}

# A client without an engine behind it answers to --version, but not to this.
engine_works() {
    for engine in ${ROOST_ENGINE:-podman docker}; do
        command -v "$engine" >/dev/null 2>&1 || continue
        case $("$engine" --version 2>/dev/null) in
        podman*) "$engine" info >/dev/null 2>&1 && return ;;
        *) [ -n "$("$engine" info --format '{{.ServerVersion}}' 2>/dev/null)" ] && return ;;
        esac
    done
    return 1
}

# crun refuses the old cgroup hierarchy beside the new one.
boxes_can_start() {
    command -v runc >/dev/null 2>&1 && return
    case $("$engine" info --format '{{.Host.CgroupsVersion}} {{.Host.OCIRuntime.Name}}' 2>&1) in
    'v1 crun') return 1 ;;
    esac
}

# What is pulled here is what boxes start from. Without a registry they are built instead, and
# whatever builds them being there already means that this was found out before.
can_pull() {
    image=docker.io/library/ubuntu:24.04
    command -v mmdebstrap >/dev/null 2>&1 && return
    "$engine" image inspect "$image" >/dev/null 2>&1 && return
    say "pulling $image"
    timeout 60 "$engine" pull --quiet "$image" >/dev/null 2>&1
}

need_browsers() {
    if grep -qs '^ID=ubuntu' /etc/os-release; then need firefox firefox; else need firefox firefox-esr; fi
    for program in chromium chromium-browser google-chrome; do
        command -v "$program" >/dev/null 2>&1 && return
    done
    missing="$missing chromium"
}

pick_python() {
    for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$python" -c 'import ensurepip, venv' 2>/dev/null || command -v uv >/dev/null 2>&1 ||
                missing="$missing $(venv_package)"
            return
        fi
    done
    fail "Python 3.11 or newer is needed, and there is none. Install it (apt-get install python3" \
        "on Debian 12 and Ubuntu 24.04, python3.11 python3.11-venv on Ubuntu 22.04), or say where" \
        "it is: PYTHON=/path/to/python3 make setup"
}

venv_package() {
    case $(command -v "$python") in
    */python3) echo python3-venv ;;
    *) echo "${python##*/}-venv" ;;
    esac
}

install_packages() {
    [ -n "$missing" ] || return 0
    how="apt-get install -y --no-install-recommends$missing"
    command -v apt-get >/dev/null 2>&1 ||
        fail "these are missing; install them by the system's own package manager:$missing"
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo="sudo -n"
        $sudo true 2>/dev/null || fail "packages are missing. Install them: sudo $how"
    fi
    say "installing$missing"
    # The lists may be there and fresh; only where they are not is time spent on them.
    apt >/dev/null 2>&1 || {
        $sudo apt-get update -qq >&2
        apt >&2 || fail "the packages could not be installed; try it by hand: $how"
    }
}

apt() {
    # Both are split into words on purpose.
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
}

# The stamp says what was installed: from which pyproject.toml, where, for which Python.
make_venv() {
    stamp=.venv/roost-${group:-run}.stamp
    wanted=$(
        cksum pyproject.toml
        pwd -P
        "$python" --version
    )
    [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    # What the tests need includes what the demo needs.
    [ -z "$group" ] && [ "$(cat .venv/roost-dev.stamp 2>/dev/null)" = "$wanted" ] && return
    say "installing the project into .venv"
    if command -v uv >/dev/null 2>&1; then
        with_uv || with_pip # an old uv knows no dependency groups
    else
        with_pip
    fi
    printf '%s\n' "$wanted" >"$stamp"
}

with_uv() {
    usable_venv || { rm -rf .venv && uv venv --quiet --seed --python "$python" .venv; }
    # shellcheck disable=SC2086
    uv pip install --quiet --python .venv/bin/python --editable . ${group:+--group $group}
}

with_pip() {
    usable_venv || "$python" -m venv --clear .venv
    # Dependency groups came with pip 25.1.
    .venv/bin/python -m pip install --quiet --dry-run --no-index 'pip>=25.1' 2>/dev/null ||
        .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install --quiet --editable . ${group:+--group $group}
}

# One that was moved, or whose Python is gone or another one now, is made anew.
usable_venv() {
    [ "$(.venv/bin/python --version 2>/dev/null)" = "$("$python" --version)" ] &&
        [ "$(.venv/bin/python -c 'import sys; print(sys.prefix)')" = "$(pwd -P)/.venv" ] &&
        .venv/bin/python -m pip --version >/dev/null 2>&1
}

main "$@"
