#!/usr/bin/env bash
# Writes the systemd units and starts what changed. --vllm: vLLM's unit too; --no-start: only write.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=${PREFIX:-/opt/spirrow/lexora}
user=${SERVICE_USER:-spirrow}
unit_dir=${UNIT_DIR:-/etc/systemd/system}
units=(spirrow-lexora.service)
start=yes
for argument in "$@"; do
    case $argument in
        --vllm) units=(vllm.service "${units[@]}") ;;
        --no-start) start=no ;;
        *) echo "usage: $0 [--vllm] [--no-start]" >&2; exit 2 ;;
    esac
done
[[ -d /run/systemd/system ]] || start=no
if [[ ! $prefix =~ ^/[A-Za-z0-9._/-]+$ ]]; then
    echo "PREFIX must be an absolute path of letters, digits and . _ - /: $prefix" >&2
    exit 2
fi

mkdir -p "$unit_dir"
changed=()
for unit in "${units[@]}"; do
    new=$(sed "s|^User=spirrow|User=$user|; s|/opt/spirrow/lexora|$prefix|g" "$source_dir/deploy/systemd/$unit")
    if [[ ! -e $unit_dir/$unit || $new != "$(cat "$unit_dir/$unit")" ]]; then
        printf '%s\n' "$new" >"$unit_dir/$unit"
        chmod 0644 "$unit_dir/$unit"
        changed+=("$unit")
        echo "written: $unit_dir/$unit"
    fi
done

if [[ ${#changed[@]} -eq 0 ]]; then
    echo "nothing changed"
elif [[ $start = no ]]; then
    echo "not started; later: systemctl daemon-reload && systemctl enable --now ${changed[*]}"
else
    systemctl daemon-reload
    systemctl enable "${changed[@]}"
    systemctl restart "${changed[@]}"
fi
