#!/bin/bash
# Try one thing on a real NFS between two kernels: two virtual machines with Debian's kernel, one of them the server. Not
# for CI: without KVM it takes minutes. Nothing of this machine's network is touched.
#   trial.sh SCENARIO [FOLDER]        lock, reader, server-lost or cost: files here; FOLDER is for packages and results
# Needs qemu-system-x86, kmod, cpio, and apt to download the kernel and nfs-kernel-server, which are not installed.
set -euo pipefail
scenario=$1 folder=${2:-/opt/nfs-trial}
source=$(cd "$(dirname "$0")/../.." && pwd) project=$folder/project
case $folder in /tmp*) echo "not below /tmp, which the machines have for themselves" >&2; exit 64 ;; esac
mkdir -p "$folder"/{debs,k,b}
if [ ! -e "$folder/b/usr/sbin/rpc.nfsd" ]; then
  image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: linux-image-//p' | head -n 1)
  cd "$folder/debs"
  apt-get download "linux-image-$image" nfs-kernel-server nfs-common libtirpc3 libevent-core-2.1-7 libnfsidmap1 \
    libkeyutils1 libdevmapper1.02.1 libwrap0 busybox-static
  for deb in *.deb; do
    case $deb in linux-image*) dpkg -x "$deb" "$folder/k" ;; *) dpkg -x "$deb" "$folder/b" ;; esac
  done
fi
version=$(ls "$folder/k/lib/modules")
depmod -b "$folder/k" "$version"
rm -rf "$project"
(cd "$source" && node --import tsx test/nfs/translate.ts "$project")

# An initial system that does no more than mount this machine's files as its root.
root=$(mktemp -d "$folder/initrd.XXXXXX") ctl=$(mktemp -d "$folder/$scenario.XXXXXX")
mkdir -p "$root"/{bin,m,new,proc,sys,dev}
cp "$folder/b/bin/busybox" "$root/bin/busybox"
modules=$(for module in 9p 9pnet_virtio virtio_pci virtio_net overlay; do
  modprobe -d "$folder/k" -S "$version" --show-depends "$module"
done | awk '/insmod/ && !seen[$2]++ { print $2 }')
for module in $modules; do cp "$module" "$root/m/"; done
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
for module in $(for module in $modules; do basename "$module"; done | tr '\n' ' '); do /bin/busybox insmod /m/\$module; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /new
for folder in proc sys dev; do /bin/busybox mount -t \$( [ \$folder = dev ] && echo devtmpfs || echo \$folder\$( [ \$folder = sys ] && echo fs)) none /new/\$folder; done
for folder in tmp run var/lib srv; do /bin/busybox mount -t tmpfs none /new/\$folder; done
/bin/busybox mkdir -p /new/run/ctl /new/dev/shm
/bin/busybox ln -s /proc/self/fd /new/dev/fd
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=none ctl /new/run/ctl
name=\$(/bin/busybox sed 's/.*machine=\\([ab]\\).*/\\1/' /proc/cmdline)
exec /bin/busybox switch_root /new /bin/bash "$project/test/nfs/guest.sh" \$name "$project" "$folder/b" "$scenario"
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1 >"$ctl/initrd")
rm -rf "$root"

# The machines talk by a socket of this one's loopback; neither has another network.
port=$((20000 + RANDOM % 20000))
machine() {
  local name=$1 link=$2 mac=$3
  qemu-system-x86_64 -accel "${ACCEL:-tcg}" -cpu max,arch-capabilities=off -smp 1 -m 2048 -nographic -no-reboot -kernel "$folder"/k/boot/vmlinuz-* \
    -initrd "$ctl/initrd" -append "console=ttyS0 quiet panic=1 no_timer_check machine=$name" \
    -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=$ctl,mount_tag=ctl,security_model=none" \
    -netdev "socket,id=net,$link" -device "virtio-net-pci,netdev=net,mac=52:54:00:00:00:0$mac" \
    >"$ctl/console.$name" 2>&1 </dev/null &
}
trap 'kill $(jobs -p) 2>/dev/null' EXIT
machine a "listen=127.0.0.1:$port" 1
sleep 1
machine b "connect=127.0.0.1:$port" 2
for _ in $(seq "${SECONDS_MOST:-900}"); do
  [ -e "$ctl/ended.a" ] && [ -e "$ctl/ended.b" ] && break
  sleep 1
done
cat "$ctl/log"
echo "results: $ctl"
