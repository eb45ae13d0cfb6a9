#!/bin/bash
# What one of the two machines of the NFS trial does; see trial.sh. Both see this machine's files, read-only, as their own.
#   guest.sh NAME PROJECT PACKAGES SCENARIO
set -u
name=$1 project=$2 packages=$3 scenario=$4
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LD_LIBRARY_PATH=$packages/usr/lib/x86_64-linux-gnu:$packages/lib/x86_64-linux-gnu
ctl=/run/ctl share=/mnt
say() { echo "$name $(cut -d. -f1 /proc/uptime) s: $*" >>"$ctl/log"; }
mark() { touch "$ctl/$1"; }
await() { until [ -e "$ctl/$1" ]; do sleep 0.2; done; }
# The copy of the project is translated to JavaScript.
program() {
  local file=$1
  shift
  node "$file.js" "$@"
}
load() { for module in "$@"; do modprobe -d "$packages/../k" "$module" || say "no module $module"; done; }

hostname "$name"
ip link set lo up
if [ "$name" = a ]; then
  ip addr add 10.0.0.1/24 dev eth0
  ip link set eth0 up
  load nfsd
  mkdir -p /srv/export
  mount -t tmpfs none /srv/export
  mount -t nfsd nfsd /proc/fs/nfsd
  mkdir -p /var/lib/nfs/rpc_pipefs /var/lib/nfs/v4recovery
  touch /var/lib/nfs/{etab,rmtab,xtab}
  echo 10 >/proc/fs/nfsd/nfsv4leasetime
  echo 10 >/proc/fs/nfsd/nfsv4gracetime
  "$packages/usr/sbin/exportfs" -i -o rw,no_root_squash,fsid=0,insecure,no_subtree_check 10.0.0.0/24:/srv/export 2>>"$ctl/log"
  "$packages/usr/sbin/rpc.mountd" --no-nfs-version 3 --no-udp >>"$ctl/mountd.log" 2>&1
  "$packages/usr/sbin/rpc.nfsd" --no-nfs-version 3 --no-udp 8 2>>"$ctl/log"
  say "exports: $(cat /proc/fs/nfsd/versions)"
  mark server
else
  ip addr add 10.0.0.2/24 dev eth0
  ip link set eth0 up
fi
load nfs nfsv4
await server
for attempt in 1 2 3 4 5 6; do
  mount -i -t nfs4 -o "vers=4.2,addr=10.0.0.1,clientaddr=$(hostname -I | cut -d' ' -f1),hard" 10.0.0.1:/ "$share" 2>>"$ctl/log" && break
  sleep 2
done
say "mounted: $(grep " $share " /proc/mounts)"
cd "$project" || exit
. "$project/test/nfs/$scenario.sh"
say "ends"
mark "ended.$name"
[ "$name" = b ] || await ended.b # the server goes last
sync
