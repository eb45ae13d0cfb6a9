# One machine publishes a model with its external data twenty times; the other reads it all the time. Sourced by guest.sh.
job=$share/models/core
if [ "$name" = a ]; then
  mkdir -p "$job"
  program test/nfs/publish-versions "$job" 1 1
  mark ready
  await reading
  program test/nfs/publish-versions "$job" 2 21
  say "published 20 versions"
  mark published
else
  await ready
  mkfifo /tmp/until
  program test/support/model-reader "$job" </tmp/until >/tmp/seen 2>&1 &
  exec 9>/tmp/until
  until grep -q reading /tmp/seen; do sleep 0.2; done
  mark reading
  await published
  exec 9>&-
  wait
  say "the reader saw: $(tail -n 5 /tmp/seen | tr '\n' ' ')"
fi
