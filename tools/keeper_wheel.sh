#!/bin/sh
# Build the wheel of packages/jupyter-keeper that the role jupyter carries to the boxes.
set -eu
cd "$(dirname "$0")/.."
rm -f roles/jupyter/files/jupyter_keeper-*.whl
uv build --quiet --wheel packages/jupyter-keeper --out-dir roles/jupyter/files
rm -f roles/jupyter/files/.gitignore
