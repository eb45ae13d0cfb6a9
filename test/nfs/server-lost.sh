# A machine trains while it loses the server; sourced by guest.sh. Three times: the server stops during a training and comes
# back soon; it stops in the midst of a publication and stays away for longer than a soft mount waits, which is tried beside;
# the machine is cut off for longer than its lease while the other one starts, too.
soft=/run/soft exported=/srv/export
# quotas NAME VERSION [UNTIL]
quotas() {
  local name=$1 until=${3:+, \"$3\"}
  local job="{ \"maxDiskMb\": 100, \"sandbox\": \"off\", \"train\": [\"node\", \"$project/test/nfs/train.js\", \"{outputDir}\", \"$2\"$until ] }"
  echo "{ \"jobs\": { \"core\": $job, \"dpi\": $job, \"agent\": $job } }" >"/tmp/$name.json"
}
# run NAME MODELS: train, and tell how it ended
run() {
  program tasks core --retrain --models-dir "$2" --quotas "/tmp/$1.json" >"/tmp/$1.out" 2>&1
  say "run $1 ended with $?: $(grep -E 'warn|fail|error|publish' "/tmp/$1.out" | tail -n 4 | tr '\n' '|') $(tail -n 1 "/tmp/$1.out")"
}
# training NAME: wait until it trains
training() { until grep -qs 'training, pid' "/tmp/$1.out"; do sleep 0.2; done; }
# give PID SECONDS: wait for its end no longer than that
give() {
  for _ in $(seq "$2"); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 1
  done
  say "still runs: $(ps -o stat=,wchan:32=,args= --ppid "$1" | cut -c 1-120 | tr '\n' '|'); server: $(tr '\n' ' ' </proc/fs/nfsd/portlist) $(cat /proc/fs/nfsd/threads) threads;" \
    "kernel: $(dmesg | grep -iE 'nfs|lock' | tail -n 5 | tr '\n' '|')"
}
# what is published, as MODELS shows it
published() {
  local model=$1/core/current/core.onnx
  say "$2: current is $(readlink "$1/core/current"), version $(head -c 100 "$model" | grep -aoE '[0-9]+ x' | head -n 1)," \
    "verify: $(program scripts/verify core --models-dir "$1" 2>&1 | tail -n 1)"
}
stop_server() {
  "$packages/usr/sbin/rpc.nfsd" 0 2>>"$ctl/log"
  say "the server is away; in core: $(ls $exported/models/core $exported/models/core/generations | tr '\n' ' ')"
}
start_server() {
  echo 30 >/proc/fs/nfsd/nfsv4gracetime # machines without KVM are slow to come back
  "$packages/usr/sbin/rpc.nfsd" --no-nfs-version 3 --no-udp 8 2>>"$ctl/log"
  say "the server is back"
}

for version in 1 3 6; do quotas "$version" "$version"; done
for version in 2 4 5; do quotas "$version" "$version" "$ctl/go.$version"; done

if [ "$name" = a ]; then
  local_models=$exported/models
  await training.2
  stop_server
  published "$local_models" "meanwhile, on the server itself"
  run 6 "$share/models" &
  sleep 15
  say "the other starter $(kill -0 $! 2>/dev/null && echo waits || echo has ended)"
  start_server
  give $! 90
  mark go.2
  await ended.2
  wait $!
  mark free.2

  await training.4
  until [ -e "$local_models/core/generations/next" ]; do sleep 0.02; done
  stop_server
  published "$local_models" "meanwhile, on the server itself"
  sleep 60
  start_server
  mark go.4
  await ended.3

  await cut
  sleep 15 # the lease is 10 s
  run 6 "$share/models"
  published "$share/models" "after the other's run"
  mark heal
else
  run 1 "$share/models"
  published "$share/models" "at first"
  run 2 "$share/models" &
  training 2
  mark training.2
  wait $!
  published "$share/models" "after a server that came back"
  mark ended.2
  await free.2

  mkdir -p "$soft"
  mount -i -t nfs4 -o "vers=4.2,addr=10.0.0.1,clientaddr=10.0.0.2,soft,timeo=50,retrans=1,nosharecache" 10.0.0.1:/ "$soft" 2>>"$ctl/log"
  say "mounted: $(grep " $soft " /proc/mounts)"
  run 4 "$soft/soft-models" &
  soft_run=$!
  training 4
  mark training.4
  run 3 "$share/models"
  published "$share/models" "after a server that stopped in the midst of a publication"
  wait "$soft_run"
  mark ended.3

  run 5 "$share/models" &
  training 5
  ip link set eth0 down
  say "cut off"
  mark cut
  await heal
  ip link set eth0 up
  say "no longer cut off"
  sleep 10
  mark go.5
  wait $!
  published "$share/models" "after having been cut off"
  say "kernel: $(dmesg | grep -iE 'nfs|lock' | tail -n 5 | tr '\n' '|')"
fi
