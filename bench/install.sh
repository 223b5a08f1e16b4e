#!/bin/sh
# Makes .venv-bench with the peers, exactly as locked in bench/requirements.txt.
set -eu
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv --clear .venv-bench
.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes --only-binary :all: -r bench/requirements.txt
