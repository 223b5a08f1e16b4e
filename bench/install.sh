#!/bin/sh
# Installs what the benchmarks need and is not there yet: nginx, wrk and a C compiler from apt (as root; otherwise it
# says how), the peers into .venv-bench exactly as locked in bench/requirements.txt.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

packages=""
for pair in nginx:nginx-light wrk:wrk cc:gcc\ libc6-dev taskset:util-linux; do
    command -v "${pair%%:*}" > /dev/null || packages="$packages ${pair#*:}"
done
if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "install these first: sudo apt-get install --no-install-recommends$packages" >&2
        exit 2
    fi
    apt-get update -q
    # shellcheck disable=SC2086  # one argument per package is meant
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
fi

if ! cmp -s bench/requirements.txt .venv-bench/installed; then
    "${PYTHON:-python3}" -m venv --clear .venv-bench
    .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes --only-binary :all: -r bench/requirements.txt
    cp bench/requirements.txt .venv-bench/installed
fi
