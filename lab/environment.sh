#!/usr/bin/env bash
# environment.sh DIRECTORY: a virtual environment in DIRECTORY holding exactly requirements.lock, hashes checked, and this
# project, editable. uv does the work; where uv does not reach the package index that pip is configured for, pip does.
set -euo pipefail

directory=$1
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_PROGRESS=1
[ -x "$directory/bin/python" ] || python3 -m venv "$directory"
bootstrap=.cache/bootstrap
if [ ! -x "$bootstrap/bin/uv" ]; then
    python3 -m venv "$bootstrap"
    "$bootstrap/bin/pip" install --quiet 'uv>=0.5,<1' || echo "uv cannot be installed here; pip does its work" >&2
fi
with_uv() {
    [ -x "$bootstrap/bin/uv" ] || return 1
    export VIRTUAL_ENV=$PWD/$directory
    "$bootstrap/bin/uv" pip sync --quiet --require-hashes requirements.lock &&
        "$bootstrap/bin/uv" pip install --quiet --no-deps --editable .
}
with_pip() {
    "$directory/bin/python" -m ensurepip > /dev/null
    "$directory/bin/python" -m pip install --quiet --require-hashes -r requirements.lock
    "$directory/bin/python" -m pip install --quiet --no-deps --editable .
}
with_uv || { echo "uv did not succeed; installing with pip" >&2; with_pip; }
