#!/usr/bin/env bash
# Fills nginx's cache of prepared answers (docs/nginx.md): asks every prompt of the catalogue with the seeds 0 to 4, and
# again, to see that each answer is kept. What is kept already costs nothing, so after a failure just run it again.
#
#   scripts/warmup.sh [--refresh | --check] [URL]
#
# URL is the door that fills, http://127.0.0.1:8081 unless said. --refresh asks for new answers, --check only looks
# whether all are there: give it the clients' door. MODEL is the first that URL lists unless said, API_KEY the upstream's.
set -euo pipefail
variants=5  # as many as lexora.conf.template picks from
seconds=600  # for one answer
retries=${RETRIES:-2}
url=http://127.0.0.1:8081
how=fill
for argument; do
    case $argument in
        --refresh | --check) how=${argument#--} ;;
        http://* | https://*) url=${argument%/} ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[[ $how != check ]] || retries=0  # what is not there now will not come by itself
catalogue=${CATALOGUE:-$(dirname "${BASH_SOURCE[0]}")/../static_responses/catalogue.json}
work=$(mktemp -d)  # ours alone, as the key's header lies there
trap 'rm -rf "$work"' EXIT
echo 'content-type: application/json' > "$work/headers"
[[ -z ${API_KEY-} ]] || echo "authorization: Bearer $API_KEY" >> "$work/headers"

call() {  # PATH, curl's options …; the answer is in $work/answer, its head in $work/head. Fails with a reason on stdout.
    local status
    : > "$work/head"
    status=$(curl -sS --max-time "$seconds" --retry "$retries" --header "@$work/headers" --dump-header "$work/head" \
        --output "$work/answer" --write-out '%{http_code}' "${@:2}" "$url$1" 2> "$work/error") || { tail -1 "$work/error"; return 1; }
    [[ $status = 200 ]] || { echo "status $status: $(head -c 300 "$work/answer")"; return 1; }
}

ask() {  # BODY, curl's options …
    call /v1/chat/completions --data-binary "@$1" "${@:2}" && judge
}

judge() {  # whether the answer is whole; leaves its text, as one line
    python3 -I -S - "$work/answer" > "$work/judgement" 2> "$work/error" <<'PYTHON' || { tail -1 "$work/error"; return 1; }
import json, sys
try:
    choice = json.load(open(sys.argv[1], encoding="utf-8"))["choices"][0]
    text = choice["message"]["content"]
except (ValueError, LookupError, TypeError):
    sys.exit("is no chat completion")
if not isinstance(text, str) or not text.strip():
    sys.exit("the answer is empty")
if choice.get("finish_reason") != "stop":
    sys.exit(f"the answer is not whole: finish_reason {choice.get('finish_reason')}")
print(json.dumps(text))
PYTHON
}

cache_status() {
    tr -d '\r' < "$work/head" | sed -n 's/^x-cache-status: //Ip'
}

is_kept() {
    [[ $(cache_status) =~ ^(HIT|STALE|UPDATING)$ ]]
}

fill() {  # BODY: says what was done, or fails and says why
    local said
    local -a fresh=()
    [[ $how != refresh ]] || fresh=(--header 'cache-control: no-cache')
    said=$(ask "$1" "${fresh[@]}") || {
        is_kept || { echo "$said"; return 1; }
        said=$(ask "$1" --header 'cache-control: no-cache') || { echo "$said"; return 1; }  # a kept one that is bad
    }
    is_kept && { echo kept; return; }
    mv "$work/answer" "$work/first"
    for _ in 1 2 3 4 5; do
        # nginx first gives an answer, then moves it into the cache. Who asks again waits for that, unless there is an old one.
        [[ $how != refresh ]] || sleep 0.1
        said=$(call /v1/chat/completions --data-binary "@$1") || { echo "$said"; return 1; }
        is_kept || { echo "was not kept: x-cache-status $(cache_status)"; return 1; }
        cmp -s "$work/first" "$work/answer" && { echo filled; return; }
    done
    echo "another answer is kept than was given"
    return 1
}

check() {  # BODY
    local said
    said=$(ask "$1") || { [[ $(cache_status) != MISS ]] || said="is not in the cache"; echo "$said"; return 1; }
    is_kept || { echo "is not in the cache: x-cache-status $(cache_status)"; return 1; }
    echo kept
}

fresh=()
[[ $how = check ]] || fresh=(--header 'cache-control: no-cache')
said=$(call /v1/models "${fresh[@]}") || [[ -n ${MODEL-} && -n $(cache_status) ]] || { echo "$url/v1/models: $said" >&2; exit 1; }
[[ -n $(cache_status) ]] || { echo "$url is no cache: its answers have no x-cache-status" >&2; exit 1; }
MODEL=${MODEL:-$(python3 -I -S -c 'import json, sys; print(json.load(open(sys.argv[1]))["data"][0]["id"])' "$work/answer" 2> /dev/null)} ||
    { echo "$url/v1/models lists no model: name one, MODEL=…" >&2; exit 1; }
# The bodies as OpenAI's SDK for Python writes them, one file each, in the catalogue's order.
python3 - "$catalogue" "$MODEL" "$variants" "$work" > "$work/list" <<'PYTHON'
import json, pathlib, sys
catalogue, model, variants, folder = sys.argv[1:]
for entry in json.loads(pathlib.Path(catalogue).read_text(encoding="utf-8"))["prompts"]:
    for seed in range(int(variants)):
        body = {"messages": [{"role": "user", "content": entry["prompt"]}], "model": model, "seed": seed}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        name = f"{entry['id']}.{seed}"
        pathlib.Path(folder, name).write_text(text, encoding="utf-8")
        print(name)
PYTHON

total=$(wc -l < "$work/list")
number=0
failures=()
declare -A texts=()
while read -r name; do
    number=$((number + 1))
    if [[ $how = check ]]; then said=$(check "$work/$name"); else said=$(fill "$work/$name"); fi && good=yes || good=no
    printf '[%*d/%d] %s %s\n' ${#total} $number "$total" "${name/./\/}" "$said"
    if [[ $good = yes ]]; then
        texts[${name%.*}]+="$(< "$work/judgement")"$'\n'
    else
        failures+=("${name/./\/}: $said")
    fi
done < "$work/list"

for id in "${!texts[@]}"; do
    different=$(sort -u <<< "${texts[$id]}" | grep -c .)
    all=$(grep -c . <<< "${texts[$id]}")
    [[ $different = "$all" ]] || echo "note: $id has $different different answers in $all" >&2
done
if ((${#failures[@]})); then
    printf '%d of %d failed:\n' ${#failures[@]} "$total" >&2
    printf '  %s\n' "${failures[@]}" >&2
    exit 1
fi
echo "all $total answers are in the cache (model $MODEL)"
