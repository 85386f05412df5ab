#!/bin/sh
# Build the wheel of packages/jupyter-keeper that the role jupyter carries to the boxes; as text,
# which is what Ansible reads from a file.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$folder" ./packages/jupyter-keeper
rm -f roles/jupyter/files/jupyter_keeper-*.whl.base64
for wheel in "$folder"/jupyter_keeper-*.whl; do
  .venv/bin/python -m base64 -e "$wheel" >"roles/jupyter/files/${wheel##*/}.base64"
done
