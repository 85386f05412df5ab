"""The state of state.json as a shell script, as one would write it by hand to run it again."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent


def script(keys: Path) -> str:
    """The script, for ``sh`` as root; it looks before it changes anything.

    Args:
        keys: a folder with a file of public keys for each person.
    """
    return "\n".join(_lines(json.loads((HERE / "state.json").read_text()), keys)) + "\n"


def _lines(state: dict, keys: Path) -> Iterator[str]:
    quote = shlex.quote
    yield "set -eu; umask 022; export DEBIAN_FRONTEND=noninteractive"
    packages = " ".join(state["packages"])
    count = len(state["packages"])
    yield (
        f"[ $(dpkg-query -W -f '${{db:Status-Status}}\\n' {packages} 2>/dev/null"
        f" | grep -cx installed) = {count} ] || {{ apt-get -qq update;"
        f" apt-get -qqy install --no-install-recommends {packages}; }}"
    )
    yield (
        'put() { mkdir -p "${1%/*}"; [ -f "$1" ] && printf %s "$2" | cmp -s - "$1" ||'
        ' { printf %s "$2" >"$1.new"; mv "$1.new" "$1"; changed=1; }; chmod 644 "$1"; }; changed='
    )
    yield f"mkdir -p {' '.join(state['folders'])}; chmod 755 {' '.join(state['folders'])}"
    yield f"put /etc/default/locale {quote('LANG=' + state['locale'] + chr(10))}"
    yield f"ln -sfn /usr/share/zoneinfo/{state['timezone']} /etc/localtime"
    for person in state["people"]:
        groups = ",".join(state["account_groups"])
        yield f"id {person} >/dev/null 2>&1 || useradd -m {person}"
        yield (
            f"case $(id -nG {person}) in *{'*'.join(sorted(state['account_groups']))}*) ;;"
            f" *) usermod -aG {groups} {person} ;; esac"
        )
        yield (
            f'[ "$(getent passwd {person} | cut -d: -f7)" = /bin/bash ] ||'
            f" usermod -s /bin/bash {person}"
        )
        yield f"put /opt/bench/keys/{person} {quote((keys / person).read_text())}"
    for path, text in state["files"].items():
        yield f"put {path} {quote(text)}"
    for path, target in state["links"].items():
        yield f'[ "$(readlink {path})" = {target} ] || ln -sfn {target} {path}'
    for venv, wanted in state["venvs"].items():
        # A look into the folder instead of a start of pip.
        there = " && ".join(f"ls -d {venv}/lib/python3*/site-packages/{p}-*" for p in wanted)
        yield f"[ -x {venv}/bin/python ] || python3 -m venv {venv}"
        yield (f"{{ {there}; }} >/dev/null 2>&1 || {venv}/bin/pip -q install {' '.join(wanted)}")
    kernel = (HERE / "kernel.json.j2").read_text()
    for name in state["kernels"]:
        text = kernel.replace("{{ item }}", name)
        yield f"put /opt/bench/kernels/{name}/kernel.json {quote(text)}"
    yield '[ -z "$changed" ] || systemctl daemon-reload'
    units = " ".join(state["units"])
    yield f"systemctl -q is-enabled {units} >/dev/null || systemctl -q enable {units}"
    yield f"systemctl -q is-active {units} >/dev/null || systemctl start {units}"
