#!/usr/bin/env bash
# The quota as a shell script would keep it: du-loop.sh DIR LIMIT_BYTES COMMAND …
# Looks at the folder once a second, and kills the command with all that it has started once that is too large.
set -um
dir=$1 limitBytes=$2
shift 2
"$@" &
pid=$!
trap 'kill -KILL -- "-$pid" 2>/dev/null' EXIT
while kill -0 "$pid" 2>/dev/null; do
  usedBytes=$(du -s --block-size=1 "$dir" | cut -f1)
  ((usedBytes > limitBytes)) && break
  sleep 1
done
