# What a training costs on NFS, against one that works on the machine's own disk (--scratch); sourced by guest.sh. The same
# training in turn: 300 files of 16 KiB, read ten times, and ten checkpoints of 4 MiB.
models=$share/models scratch=/tmp/scratch times=${TIMES:-3}
if [ "$name" = b ]; then
  job="{ \"maxDiskMb\": 200, \"sandbox\": \"off\", \"train\": [\"node\", \"$project/test/nfs/train.js\", \"{outputDir}\", \"1\", \"--much\"] }"
  echo "{ \"jobs\": { \"core\": $job, \"dpi\": $job, \"agent\": $job } }" >/tmp/quotas.json
  mkdir -p "$models" "$scratch"
  # cost WHERE [OPTION ...]: seconds of the whole run, and of its training alone
  cost() {
    local where=$1 began=$EPOCHREALTIME
    shift
    program tasks core --retrain --models-dir "$models" --quotas /tmp/quotas.json --json "$@" >/tmp/out || say "failed: $(tail -n 1 /tmp/out)"
    local whole training
    whole=$(awk "BEGIN { print $EPOCHREALTIME - $began }")
    training=$(sed -n 's/.*"event":"train.exit".*"seconds":\([0-9.]*\).*/\1/p' /tmp/out)
    say "$where: run $whole s, training $training s"
    echo "$where $whole $training" >>/tmp/costs
    rm -rf "$models/core" # each begins with nothing
  }
  program tasks --version >/dev/null # so that it is in memory
  for _ in $(seq "$times"); do
    cost nfs
    cost scratch --scratch "$scratch"
  done
  for column in 2 3; do
    median() { awk -v where="$1" -v column="$column" '$1 == where { print $column }' /tmp/costs | sort -n | sed -n "$(((times + 1) / 2))p"; }
    nfs=$(median nfs) local=$(median scratch)
    say "$([ "$column" = 2 ] && echo run || echo training): median on NFS $nfs s, on scratch $local s, ratio $(awk "BEGIN { print $nfs / $local }")"
  done
fi
