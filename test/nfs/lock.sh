# Twenty starters on two machines: one trains, the others end with 75 and name it. Sourced by guest.sh.
models=$share/models starters=10
job='{ "maxDiskMb": 20, "sandbox": "off", "train": ["bash", "-c", "sleep 120"] }'
if [ "$name" = a ]; then
  mkdir -p "$models"
  echo "{ \"jobs\": { \"core\": $job, \"dpi\": $job, \"agent\": $job } }" >"$share/quotas.json"
  mark ready
fi
await ready
await "$([ "$name" = a ] && echo server || echo ready)"
mark "at.$name"
await at.a && await at.b
for n in $(seq "$starters"); do
  (
    program tasks core --models-dir "$models" --quotas "$share/quotas.json" >"/tmp/out.$n" 2>&1
    say "starter $n ended with $?: $(tail -n 1 "/tmp/out.$n")"
  ) &
done
until grep -qs train.start "$models/.trainer/events.jsonl"; do sleep 1; done
say "status: $(program scripts/status --models-dir "$models" --quotas "$share/quotas.json" 2>&1 | head -n 3 | tr '\n' ' ')"
wait
say "$(grep -c '"event":"train.start"' "$models/.trainer/events.jsonl") training(s) began in all"
