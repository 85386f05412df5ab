#!/bin/sh
# Makes the environment that the tests run in and prints the path of its Python.
#
#   tools/venv.sh newest|oldest [FOLDER]
#
# The two ends of the supported releases are pinned in tests/pins. FOLDER is where environments
# are kept (default: .cache in the package). An environment that fits already is used as it is.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
end=${1:?newest or oldest}
pins=$here/tests/pins/$end.txt
venv=${2:-$here/.cache}/keeper-venv-$end
python=${PYTHON:-python3}

# Shared data (the labextension, the server's configuration) is copied by the installation.
stamp=$({
    cat "$pins" "$here/pyproject.toml" "$0"
    find "$here/labextension" "$here/jupyter-config" -type f -exec cat {} +
    echo "$here"
    "$python" -V
} | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$venv"
    mkdir -p "${venv%/*}"
    if command -v uv >/dev/null; then
        uv venv -q --python "$python" "$venv" >&2
        uv pip install -q --python "$venv/bin/python" -r "$pins" >&2
        uv pip install -q --python "$venv/bin/python" --no-deps --no-build-isolation -e "$here" >&2
    else
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$pins" >&2
        "$venv/bin/python" -m pip install -q --disable-pip-version-check \
            --no-deps --no-build-isolation -e "$here" >&2
    fi
    echo "$stamp" > "$venv/stamp"
fi
echo "$venv/bin/python"
