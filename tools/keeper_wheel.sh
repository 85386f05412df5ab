#!/bin/sh
# Build the wheel of packages/jupyter-keeper that the role jupyter carries to the boxes.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$folder" ./packages/jupyter-keeper
rm -f roles/jupyter/files/jupyter_keeper-*.whl
cp "$folder"/jupyter_keeper-*.whl roles/jupyter/files/
