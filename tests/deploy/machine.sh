# Runs in a machine whose systemd has the two units, and says what became of them: `name: value` a line.
ask() { curl --silent --retry 40 --retry-delay 1 --retry-all-errors --max-time 10 "$@"; }
say() { echo "$1: $(systemctl show --value --property "$3" "$2")"; }

systemctl start spirrow-lexora
echo "health: $(ask --fail http://127.0.0.1:8001/health)"
echo "answer: $(ask http://127.0.0.1:8001/v1/chat/completions -H 'content-type: application/json' \
    -d '{"messages":[{"role":"user","content":"日本の首都はどこですか？"}]}')"
echo "metrics: $(ask --fail http://127.0.0.1:9090/metrics | grep -c '^lexora_')"
say started vllm.service ActiveState
echo "user: $(stat --format %U "/proc/$(systemctl show --value --property MainPID spirrow-lexora)")"
systemctl reload spirrow-lexora
say reloaded spirrow-lexora ActiveState

kill -KILL "$(systemctl show --value --property MainPID vllm)"
until [[ $(systemctl show --value --property SubState vllm) = auto-restart ]]; do sleep 0.1; done
say "after a crash of vLLM" spirrow-lexora ActiveState

systemctl stop vllm
say "after a stop of vLLM" spirrow-lexora ActiveState
say result spirrow-lexora Result
say status spirrow-lexora ExecMainStatus
say restarts spirrow-lexora NRestarts
journalctl --no-pager --unit spirrow-lexora --unit vllm
