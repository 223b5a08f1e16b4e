#!/usr/bin/env bash
# Installs the gateway under PREFIX, or upgrades it there; config and data are kept. PYTHON is 3.11 or later.
set -euo pipefail
umask 022  # the service's user reads what root installs
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=${PREFIX:-/opt/spirrow/lexora}
python=${PYTHON:-python3}
user=${SERVICE_USER:-spirrow}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is not Python 3.11 or later; name one: PYTHON=/usr/bin/python3.11 $0" >&2
    exit 1
fi
case $("$python" -c 'import sys; print(sys.base_prefix)') in
    /root/* | /home/*)
        echo "$python lies in a home folder, which the unit shuts (ProtectHome); name another: PYTHON=/usr/bin/python3 $0" >&2
        exit 1
        ;;
esac
if [[ $EUID -eq 0 ]] && ! id "$user" >/dev/null 2>&1; then
    useradd --system --user-group --home-dir /opt/spirrow --no-create-home --shell /usr/sbin/nologin "$user"
fi

mkdir -p "$prefix"
[[ -x $prefix/venv/bin/python ]] || "$python" -m venv "$prefix/venv"
pip=("$prefix/venv/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install --require-hashes --requirement "$source_dir/requirements.txt"
# The same version with newer code must be replaced too.
"${pip[@]}" install --no-deps --no-index --no-build-isolation --force-reinstall "$source_dir"
# The prepared answers and the page to try them lie beside the package, as in the source; pip brings packages only.
packages=$("$prefix/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$packages/static_responses" "$packages/clients"
cp -R "$source_dir/static_responses" "$source_dir/clients" "$packages/"
chmod -R u=rwX,go=rX "$packages/static_responses" "$packages/clients"

new_config=no
if [[ ! -e $prefix/config.yaml ]]; then
    install -m 0640 "$source_dir/deploy/config.yaml" "$prefix/config.yaml"
    new_config=yes
fi
mkdir -p "$prefix/data"
chmod 0700 "$prefix/data"
if [[ $EUID -eq 0 ]]; then
    chown "$user:" "$prefix/data"
    [[ $new_config = no ]] || chown "root:$(id -gn "$user")" "$prefix/config.yaml"
fi

cat <<NEXT
Lexora is in $prefix. Next:
  1. look through $prefix/config.yaml
  2. a first key: sudo -u $user $prefix/venv/bin/lexora keys create --user NAME --config $prefix/config.yaml
  3. $source_dir/scripts/setup_systemd.sh --vllm    (without --vllm if vLLM's unit is your own)
  4. after an upgrade: systemctl restart spirrow-lexora
NEXT
