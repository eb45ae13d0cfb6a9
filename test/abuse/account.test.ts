import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { checkUsage } from '../../lib/storage.ts'
import { useSandbox } from '../../lib/training/sandbox.ts'
import { ownDisk } from '../support/own-disk.ts'
import { isSweep } from '../support/places.ts'
import { publishes, trainerRig, untilEvent } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { hasLoopDevices, must } from '../support/volume-rig.ts'

/** A training above its quota is seen and ended by then; a sweep has much to do beside it. */
const MOST_MS = isSweep ? 1500 : 1000
const MIB = 2 ** 20
const canRun = (...programs: string[]) =>
  programs.every(it => spawnSync(it, ['--version'], { stdio: 'ignore' }).error === undefined)
const canAttack = hasLoopDevices && canRun('python3') && useSandbox('core', 'auto')
const needs = 'needs root, loop devices, python3 and bubblewrap'
const hostile = skipUnless(test, canAttack, needs)
const hostileInSweep = skipUnless(inSweep, canAttack, needs)
const onBtrfs = skipUnless(
  inSweep,
  hasLoopDevices && canRun('mkfs.btrfs', 'python3'),
  'needs root, loop devices and btrfs-progs',
)

/** A user that has nothing else on this machine. */
const STRANGER = 12_345
const asStranger = ['setpriv', `--reuid=${STRANGER}`, `--regid=${STRANGER}`, '--clear-groups']
const python = (script: string) => ({
  train: ['/usr/bin/python3', '-c', script, '{outputDir}'],
  models: ['*.bin'],
})

/** Ways to hold the space of deleted files, 10 MiB each. */
const holds = {
  'mapped by one page': `
    libc.mmap(None, 4096, 1, 1, fd, 0); os.unlink(path); os.close(fd)`,
  'open in a thread whose process has lost its first one': `
    os.unlink(path)
    if n == 0: first_ends = True`,
  'open in a process that lets nobody look into it': `
    libc.prctl(4, 0, 0, 0, 0); os.unlink(path); keep.append(fd)`, // PR_SET_DUMPABLE
  'on their way through a socket': `
    a, b = socket.socketpair(); keep += [a, b]
    socket.send_fds(a, [b'x'], [fd]); os.unlink(path); os.close(fd)`,
}

for (const [how, hold] of Object.entries(holds)) {
  // Tests without a training find what the others hold.
  const hostileHere = how.includes('socket') ? hostile : hostileInSweep
  hostileHere(`deleted files that are ${how} are charged, by an ordinary user too`, async () => {
    const script = `
import ctypes, os, socket, sys, threading, time
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
keep = []; first_ends = False
def fill():
  global keep, first_ends
  for n in range(40):
    path = f'{sys.argv[1]}/f{n}'; fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for _ in range(10): os.write(fd, bytes(2 ** 20))
${hold}
    time.sleep(0.05)
  time.sleep(20)
t = threading.Thread(target=fill); t.start()
while not first_ends: time.sleep(0.01)
libc.pthread_exit(None)`
    await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
    await using disk = ownDisk(rig, 'ext4', 800)
    chownSync(rig.modelsDir, STRANGER, STRANGER)
    const stop = disk.watch(60 * MIB)

    const { exitCode, events } = await rig.run(['core', '--json'], { prefix: asStranger })
    const { peakBytes, longestMs } = stop()

    assert.is(exitCode, 2)
    assert.ok(
      peakBytes > 50 * MIB && peakBytes < 92 * MIB && longestMs < MOST_MS,
      `${peakBytes} bytes, ${longestMs} ms`,
    )
    assert.ok(events.some(it => it.event === 'quota.exceeded' && it.usedBytes > 60 * MIB))
  })
}

hostileInSweep('a program that waits to be run for ever hides no deleted file', async () => {
  // It waits for its process' other thread, which is stopped in its end by a tracer.
  const script = `
import ctypes, os, shutil, sys, threading, time
out = sys.argv[1]; libc = ctypes.CDLL(None)
for _ in range(8):
  shutil.copy('/bin/true', out + '/program')
  with open(out + '/program', 'ab') as file: file.write(bytes(20 * 2 ** 20))
  os.chmod(out + '/program', 0o700); told, tell = os.pipe(); wait, go = os.pipe()
  if not os.fork():
    thread = threading.Thread(target=time.sleep, args=(60,)); thread.start()
    os.write(tell, str(thread.native_id).encode()); os.read(wait, 1)
    os.execv(out + '/program', ['true'])
  print(libc.ptrace(0x4206, int(os.read(told, 20)), None, ctypes.c_void_p(0x40)), flush=True) # PTRACE_SEIZE, PTRACE_O_TRACEEXIT
  os.write(go, b'x'); time.sleep(0.3); os.unlink(out + '/program')
  for fd in (told, tell, wait, go): os.close(fd)
time.sleep(2); open(out + '/core.bin', 'w').write('x')`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
  await using disk = ownDisk(rig, 'ext4', 800)
  const stop = disk.watch(60 * MIB)

  const { exitCode, events } = await rig.run(['core', '--json'])
  const { peakBytes } = stop()

  assert.is(exitCode, 0)
  assert.ok(peakBytes < 60 * MIB, `${peakBytes} bytes`)
  const tried = events.flatMap(it => (it.event === 'train.output' ? [it.line] : []))
  assert.equal([...new Set(tried)], ['-1'])
})

const fills = `
import os, socket, sys, time
def fill(name, count):
  fd = os.open(sys.argv[1] + name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
  for _ in range(count): os.write(fd, bytes(2 ** 20)); time.sleep(0.005)
  return fd`

/** Its files are never there to be looked at: each process makes the next and ends, or hides less than is noise. */
const holders = {
  'that a chain of processes hands on, each of which makes the next and ends,': [
    ...['/usr/bin/perl', '-MPOSIX', '-e'],
    `
$SIG{CHLD} = 'IGNORE';
if (fork) { sleep 42; exit }
POSIX::setsid(); my $end = time + 40; my ($hops, $count) = (0, 0); my @keep;
while (time < $end) {
  if ($hops++ % 4 == 0 && $count < 150) {
    my $path = "$ARGV[0]/h" . $count++;
    open(my $file, '+>', $path); unlink $path; syswrite($file, 'x' x 1048576); push @keep, $file;
  }
  POSIX::_exit(0) if fork;
}`,
  ],
  'of which fewer than are noise come between two counts': [
    ...['/usr/bin/python3', '-c'],
    `
import ctypes, os, sys, threading, time
go = threading.Semaphore(0); done = threading.Semaphore(0); hidden = 0
def hold():
  ctypes.CDLL(None).unshare(0x400); keep = [] # descriptors of its own
  while go.acquire():
    fd = os.open(out + '/h', os.O_RDWR | os.O_CREAT); os.unlink(out + '/h'); os.write(fd, bytes(800 * 1024)); keep.append(fd)
    done.release()
out = sys.argv[1]; threading.Thread(target=hold, daemon=True).start(); live = []; end = time.monotonic() + 40; n = 0
while hidden < 150 and time.monotonic() < end:
  go.release(); done.acquire(); hidden += 1
  while not live or os.path.exists(live[0]):
    n += 1; live.append(f'{out}/c-{n}.checkpoint'); open(live[-1], 'wb').write(bytes(2 ** 18))
  live = [it for it in live if os.path.exists(it)]
time.sleep(4)`,
  ],
  // Nothing keeps count of what those have written who end, if nobody waits for them.
  'that come into sockets, by processes that end at once and that nobody waits for,': [
    ...['/usr/bin/python3', '-c'],
    `
import os, signal, socket, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN); keep = []
for _ in range(200):
  a, b = socket.socketpair(); keep += [a, b]
  if not os.fork():
    fd = os.open(sys.argv[1] + '/h', os.O_RDWR | os.O_CREAT); os.unlink(sys.argv[1] + '/h'); os.write(fd, bytes(2 ** 20))
    socket.send_fds(a, [b'x'], [fd]); os._exit(0)
  time.sleep(0.02)
time.sleep(4)`,
  ],
  'that come into sockets after they were counted in the folder': [
    ...['/usr/bin/python3', '-c'],
    `${fills}
fd = fill('/first', 40); os.close(fill('/second', 16)); time.sleep(1)
a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [fd]); os.close(fd); os.unlink(sys.argv[1] + '/first'); time.sleep(0.5)
fill('/second', 34); time.sleep(4)`,
  ],
  'that come into sockets while a sparse file is charged as much': [
    ...['/usr/bin/python3', '-c'],
    `${fills}
sparse = sys.argv[1] + '/sparse'; os.truncate(os.open(sparse, os.O_RDWR | os.O_CREAT), 40 * 2 ** 20)
fd = fill('/h', 40); a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [fd]); os.close(fd); os.unlink(sys.argv[1] + '/h')
os.close(fill('/second', 17)); time.sleep(1); os.unlink(sparse); time.sleep(0.5); fill('/second', 34); time.sleep(4)`,
  ],
  'that come into sockets, fewer at a time than are noise': [
    ...['/usr/bin/python3', '-c'],
    `
import os, socket, sys, time
path = sys.argv[1] + '/base'; file = open(path, 'wb'); keep = []
for _ in range(53): file.write(bytes(2 ** 20)); file.flush(); time.sleep(0.01)
file.write(bytes(640 * 1024)); file.flush(); time.sleep(0.5)
for _ in range(200):
  fd = os.open(sys.argv[1] + '/h', os.O_RDWR | os.O_CREAT); os.unlink(sys.argv[1] + '/h'); os.write(fd, bytes(850 * 1024))
  a, b = socket.socketpair(); keep += [a, b]; socket.send_fds(a, [b'x'], [fd]); os.close(fd)
  time.sleep(0.2)`,
  ],
}

for (const [which, train] of Object.entries(holders)) {
  hostileInSweep(`deleted files ${which} are charged`, async () => {
    const job = { train: [...train, '{outputDir}'], models: ['*.bin'] }
    await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...job } })
    await using disk = ownDisk(rig, 'ext4', 800)
    chownSync(rig.modelsDir, STRANGER, STRANGER)
    const stop = disk.watch(64 * MIB)

    const { exitCode, stdout } = await rig.run(['core', '--json'], { prefix: asStranger })
    const { longestMs } = stop()

    assert.is(exitCode, 2, stdout)
    assert.ok(longestMs < MOST_MS, `${longestMs} ms`)
  })
}

hostileInSweep('a training that holds up the program that is to stop all of it is ended', async () => {
  const script = `
import os, socket, sys, time
def take_all():
  try:
    while True:
      if os.fork() == 0: time.sleep(30); os._exit(0)
  except OSError: pass
keep = []
for _ in range(58):
  take_all()
  fd = os.open(sys.argv[1] + '/h', os.O_RDWR | os.O_CREAT); os.unlink(sys.argv[1] + '/h'); os.write(fd, bytes(2 ** 20))
  a, b = socket.socketpair(); keep += [a, b]; socket.send_fds(a, [b'x'], [fd]); os.close(fd); time.sleep(0.02)
time.sleep(30)`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
  await using _disk = ownDisk(rig, 'ext4', 800)
  chownSync(rig.modelsDir, STRANGER, STRANGER)

  const prefix = [...asStranger, 'prlimit', '--nproc=150']
  const { exitCode, events } = await rig.run(['core', '--json'], { prefix })

  const reasons = events.flatMap(it => (it.event === 'job.fail' ? [it.message] : []))
  assert.is(exitCode, 1, reasons.join())
  assert.match(reasons.join(), /^Stopped the training: .* holds up the program that is to stop all of it$/)
})

hostileInSweep("inodes of files that are deleted and open are the training's", async () => {
  const script = `
import os, resource, sys, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)); keep = []
while True:
  try: keep.append(os.open(sys.argv[1], os.O_TMPFILE | os.O_RDWR))
  except OSError: time.sleep(1)
  if len(keep) % 100 == 0: time.sleep(0.02)`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
  await using _disk = ownDisk(rig, 'ext4', 400, '-N', '3000')

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 3)
  const reasons = events.flatMap(it => (it.event === 'job.fail' ? [it.message] : []))
  assert.match(reasons.join(), /^Stopped core: its files use up the inodes of the disk, \d+ free/)
})

hostileInSweep('a training in long system calls goes on while others fill the disk', async () => {
  const script = `
import os, sys, time
pieces = [bytes(2 ** 20)] * 40; end = time.monotonic() + 6
while time.monotonic() < end:
  fd = os.open(sys.argv[1] + '/last', os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.writev(fd, pieces); os.close(fd)
open(sys.argv[1] + '/core.bin', 'wb').write(b'x')`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
  await using disk = ownDisk(rig, 'ext4', 2000)
  const others = setInterval(() => {
    if (disk.account().freeBytes > 600 * MIB)
      appendFileSync(rig.path('disk', 'others'), Buffer.alloc(4 * MIB))
  }, 20)

  const { exitCode, events, stdout } = await rig.run(['core', '--json'])
  clearInterval(others)

  assert.is(exitCode, 0, stdout)
  assert.ok(events.some(it => it.event === 'train.freeze'))
})

hostile('a training with files in a socket goes on while others write in bursts', async () => {
  const script = `
import os, socket, sys, time
fd = os.open(sys.argv[1] + '/h', os.O_RDWR | os.O_CREAT); os.unlink(sys.argv[1] + '/h'); os.write(fd, bytes(2 ** 15))
a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [fd]); os.close(fd)
open(sys.argv[1] + '/ready', 'w'); time.sleep(2.5); open(sys.argv[1] + '/core.bin', 'wb').write(b'x')`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
  await using _disk = ownDisk(rig, 'ext4', 800)
  const started = rig.start(['core', '--json'])
  await until('its file is in the socket', () => existsSync(rig.path('models/core/work/ready')))
  for (let burst = 0; burst < 4; burst++) {
    writeFileSync(rig.path('disk', `burst-${burst}`), Buffer.alloc(64 * MIB))
    await delay(400)
  }

  const { exitCode, events, stdout } = await started.ended

  assert.is(exitCode, 0, stdout)
  assert.ok(events.some(it => it.event === 'train.resume' && it.countedOnly))
})

hostile(
  'a training whose workers write much that is soon gone begins again if it was ended for the bursts of others',
  async () => {
    // As torch's data loaders do, with memory that is a file in a sandbox.
    const script = `
import os, socket, sys, time
if os.path.exists(sys.argv[1] + '/step-1.checkpoint'): open(sys.argv[1] + '/core.bin', 'wb').write(b'x'); sys.exit()
open(sys.argv[1] + '/step-1.checkpoint', 'wb').write(bytes(2 ** 20)); end = time.monotonic() + 20
while time.monotonic() < end:
  fd = os.open('/dev/shm/h', os.O_RDWR | os.O_CREAT); os.unlink('/dev/shm/h'); os.write(fd, bytes(4 * 2 ** 20))
  a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [fd]); os.close(fd); time.sleep(0.05); a.close(); b.close()`
    await using rig = await trainerRig({
      core: { maxDiskMb: 60, minFreeMb: 1, ...python(script), prune: ['*.checkpoint'] },
    })
    await using _disk = ownDisk(rig, 'ext4', 800)
    const started = rig.start(['core', '--json'])
    await until('it has a checkpoint', () => existsSync(rig.path('models/core/work/step-1.checkpoint')))
    const isTold = () => started.output().includes('begins again from its newest checkpoint')
    for (let burst = 0; burst < 10 && !isTold(); burst++) {
      await delay(1000)
      writeFileSync(rig.path('disk', `burst-${burst}`), Buffer.alloc(60 * MIB))
    }

    const { exitCode, events, stdout } = await started.ended

    assert.is(exitCode, 0, stdout)
    const told = events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
    assert.match(told.join(), /Stopped core by mistake: .* it begins again from its newest checkpoint/)
    assert.not(events.some(it => it.event === 'quota.exceeded'))
  },
)

hostileInSweep('long writes do not wait until a folder with many names has been walked', async () => {
  const script = `
import os, sys, time
os.mkdir('links')
for n in range(200_000):
  if n % 50_000 == 0: first = f'links/first-{n}'; open(first, 'w')
  os.link(first, f'links/{n}')
piece = bytes(100 * 2 ** 20); time.sleep(1.5)
for n in range(8):
  if not os.fork():
    os.write(os.open(f'w{n}', os.O_RDWR | os.O_CREAT), piece); time.sleep(60)
time.sleep(60)`
  const inOutput = `import os, sys; os.chdir(sys.argv[1])${script}`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(inOutput) } })
  await using disk = ownDisk(rig, 'ext4', 1500)
  const stop = disk.watch(60 * MIB)

  const { exitCode } = await rig.run(['core', '--json'])
  const { peakBytes } = stop()

  assert.is(exitCode, 2)
  assert.ok(peakBytes > 60 * MIB && peakBytes < 220 * MIB, `${peakBytes} bytes`)
  const left = readdirSync(rig.path('models/core/work'))
  assert.not(
    left.some(it => it.startsWith('w') || it === 'links'),
    left.join(),
  )
})

/** How a file that is mapped for writing is there, and who reaches it. */
const mappings = [
  { how: 'with a name', opened: 'os.close(fd)', name: 'g', prefix: [] },
  { how: 'of checkpoints', opened: 'os.close(fd)', name: 'g.checkpoint', prefix: asStranger },
  { how: 'deleted and open', opened: "os.unlink(f'g{n}')", name: 'g', prefix: asStranger },
  { how: 'deleted', opened: "os.unlink(f'g{n}'); os.close(fd)", name: 'g', prefix: [] },
]

for (const { how, opened, name, prefix } of mappings)
  hostileInSweep(`calls that no signal ends do not go on filling mapped files ${how}`, async () => {
    const fill = `
import ctypes, os, sys, threading, time
os.chdir(sys.argv[1]); c = ctypes.CDLL(None); c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
c.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
size, count = 95 * 2 ** 20, 16
zeros = os.memfd_create('zeros'); os.ftruncate(zeros, size)
os.mkdir('names')
for n in range(20_000): os.close(os.open(f'names/{n}', os.O_CREAT))
begin = threading.Barrier(count + 1); places = [0] * count
def read(n): begin.wait(); c.pread(zeros, places[n], size, 0)
for n in range(count): threading.Thread(target=read, args=[n], daemon=True).start()
time.sleep(3); buffer = bytearray(size)
for n in range(count):
  fd = os.open(f'${name.replace('g', 'g{n}')}', os.O_RDWR | os.O_CREAT); os.ftruncate(fd, size)
  os.preadv(fd, [buffer], 0); places[n] = c.mmap(None, size, 3, 1, fd, 0)
  ${opened}
begin.wait(); time.sleep(60)`
    await using rig = await trainerRig({ core: { maxDiskMb: 100, minFreeMb: 1, ...python(fill) } })
    await using disk = ownDisk(rig, 'ext4', 3000)
    if (prefix.length) chownSync(rig.modelsDir, STRANGER, STRANGER)
    const stop = disk.watch(100 * MIB)

    const { exitCode } = await rig.run(['core', '--json'], { prefix })
    const { peakBytes, longestMs } = stop()

    assert.is(exitCode, 2)
    assert.ok(
      peakBytes > 100 * MIB && peakBytes < 1300 * MIB && longestMs < MOST_MS,
      `${peakBytes} bytes, ${longestMs} ms`,
    )
    // What was cut short has gone: it is no checkpoint to go on from.
    for (const left of readdirSync(rig.path('models/core/work')))
      assert.ok(statSync(rig.path(`models/core/work/${left}`)).size > 0, left)
  })

hostileInSweep(
  'deleted files in a socket that only its own queue holds do not stay on the disk',
  async () => {
    const script = `
import array, os, socket, sys, time
for n in range(9):
  fds = []
  for m in range(9):
    path = f'{sys.argv[1]}/f{n}-{m}'; fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(fd, bytes(5 * 2 ** 20)); os.unlink(path); fds.append(fd)
  it = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); it.bind(chr(0) + f'own-{n}-{os.getpid()}')
  it.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds + [it.fileno()]))], 0, it.getsockname())
  for fd in fds: os.close(fd)
  os.close(it.detach()); time.sleep(0.5)
open(sys.argv[1] + '/core.bin', 'w').write('x')`
    await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
    await using disk = ownDisk(rig, 'ext4', 800)
    chownSync(rig.modelsDir, STRANGER, STRANGER)
    const stop = disk.watch(60 * MIB)

    const { exitCode } = await rig.run(['core', '--json'], { prefix: asStranger })
    const { peakBytes, longestMs } = stop()

    assert.is(exitCode, 0)
    assert.ok(peakBytes > 44 * MIB && longestMs < MOST_MS, `${peakBytes} bytes, ${longestMs} ms`)
  },
)

hostileInSweep(
  'a deleted file of an earlier start is charged though its path is too long to be told',
  async () => {
    const script = `
import os, sys, time
out = sys.argv[1]
if not os.path.exists(out + '/old0'):
  for n in range(10): open(f'{out}/old{n}', 'wb').write(bytes(5 * 2 ** 20))
  sys.exit(1)
fds = [os.open(f'{out}/old{n}', os.O_RDWR) for n in range(10)]
top = os.open(out, os.O_RDONLY); os.chdir(out)
for _ in range(20): os.mkdir('d' * 250); os.chdir('d' * 250)
for n in range(10): os.rename(f'old{n}', f'o{n}', src_dir_fd=top); os.unlink(f'o{n}')
for n in range(7): open(f'{out}/new{n}', 'wb').write(bytes(5 * 2 ** 20)); time.sleep(0.1)
time.sleep(20)`
    await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
    await using disk = ownDisk(rig, 'ext4', 800)
    chownSync(rig.modelsDir, STRANGER, STRANGER)
    await rig.run(['core'], { prefix: asStranger })
    const stop = disk.watch(60 * MIB)

    const { exitCode } = await rig.run(['core', '--json'], { prefix: asStranger })
    const { longestMs } = stop()

    assert.is(exitCode, 2)
    assert.ok(longestMs < MOST_MS, `${longestMs} ms`)
  },
)

hostileInSweep(
  'a deleted file that is open and mapped counts once on an overlay, for an ordinary user too',
  async () => {
    const script = `
import mmap, sys, tempfile, time
f = tempfile.TemporaryFile()
for _ in range(60): f.write(bytes(2 ** 20))
f.flush(); m = mmap.mmap(f.fileno(), 0); time.sleep(2)
open(sys.argv[1] + '/m.bin', 'w').write('x')`
    for (const sandbox of ['required', 'off'] as const) {
      await using rig = await trainerRig({
        core: { maxDiskMb: 100, minFreeMb: 1, sandbox, ...python(script) },
      })
      await using _disk = ownDisk(rig, 'ext4', 400)
      for (const name of ['upper', 'lower', 'work']) mkdirSync(join(rig.modelsDir, name))
      const folder = (name: string) => `${name}dir=${join(rig.modelsDir, name)}`
      const at = rig.path('overlay')
      mkdirSync(at)
      must('mount', '-t', 'overlay', '-o', ['lower', 'upper', 'work'].map(folder).join(), 'none', at)
      chownSync(at, STRANGER, STRANGER)

      const args = ['core', '--json', '--models-dir', at]
      const { exitCode, stdout } = await rig
        .run(args, { prefix: asStranger, withModelsDir: false })
        .finally(() => must('umount', at))

      assert.is(exitCode, 0, stdout)
    }
  },
)

for (const how of ['stays', 'moves while it is walked']) {
  hostileInSweep(
    `in the grace of a training that is ended, a folder that ${how} is held inside the quota`,
    async () => {
      const script = `
import ctypes, os, select, signal, struct, sys, threading, time
out = sys.argv[1]; moves = ${how === 'stays' ? 0 : 1}; block = bytes(2 ** 20)
folders = [f'{out}/{name}' for name in 'abcde']
for folder in folders:
  os.mkdir(folder)
  for n in range(4000): os.close(os.open(f'{folder}/{n}', os.O_CREAT))
libc = ctypes.CDLL(None); watcher = libc.inotify_init()
names = {libc.inotify_add_watch(watcher, it.encode(), 0x20): it for it in folders}  # IN_OPEN
def opened(seconds):
  if not select.select([watcher], [], [], seconds)[0]: return
  events = os.read(watcher, 65536); at = 0
  while at < len(events):
    name, mask, _, length = struct.unpack_from('iIII', events, at); at += 16 + length
    if mask & 0x40000000 and not length: yield names[name]  # IN_ISDIR: the folder itself
os.mkdir(f'{out}/full'); place = out; lock = threading.Lock(); n = 0
def fill(most, seconds):
  global n
  while n < most:
    with lock: fd = os.open(f'{place}/full/{n}', os.O_CREAT | os.O_WRONLY)
    os.write(fd, block); os.close(fd); n += 1; time.sleep(seconds)
fill(56, 0.02)  # of which a count begins
order = []
while len(order) < 5:
  for folder in opened(1):
    if folder not in order: order.append(folder)
first, second, last = order[0], order[1], order[-1]
def move(to):
  global place
  with lock:
    if place != to: os.rename(f'{place}/full', f'{to}/full'); place = to
def hide():
  while True:
    for folder in opened(1):
      if folder == second: move(first)
      if folder == last: threading.Timer(0.15, move, [last]).start()
if moves: threading.Thread(target=hide, daemon=True).start()
move(last)
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
open(f'{out}/ready', 'w').close()
while not ended: time.sleep(0.01)
print('has its grace', flush=True)
fill(200, 0.04)
time.sleep(4)`
      await using rig = await trainerRig({
        core: { maxDiskMb: 60, minFreeMb: 1, graceSeconds: 20, ...python(script) },
      })
      await using disk = ownDisk(rig, 'ext4', 800)
      const stop = disk.watch(66 * MIB)
      const run = rig.start(['core', '--json'])
      await until('it has filled most of it', () => existsSync(rig.path('models/core/work/ready')))

      run.child.kill('SIGTERM')
      const { exitCode } = await run.ended
      const { peakBytes, longestMs } = stop()

      assert.is(exitCode, 143)
      assert.match(readFileSync(rig.path('models/.trainer/core.log'), 'utf8'), 'has its grace')
      assert.ok(peakBytes > 50 * MIB && longestMs < MOST_MS, `${peakBytes} bytes, ${longestMs} ms above it`)
    },
  )
}

hostile('a folder that moves while it is walked does not hide', async () => {
  const script = `
import os, sys
out = sys.argv[1]; block = bytes(2 ** 18)
for side in 'ab': os.makedirs(f'{out}/{side}/x')
for n in range(3000): os.close(os.open(f'{out}/a/{n}', os.O_CREAT))
os.mkdir(f'{out}/a/full')
for n in range(800):
  with open(f'{out}/a/full/{n}', 'wb') as f: f.write(block)
  for _ in range(20):
    os.rename(f'{out}/a/full', f'{out}/b/full'); os.rename(f'{out}/b/full', f'{out}/a/full')`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, ...python(script) } })
  await using disk = ownDisk(rig, 'ext4', 800)
  const stop = disk.watch(60 * MIB)

  const { exitCode } = await rig.run(['core', '--json'])
  const { peakBytes } = stop()

  assert.is(exitCode, 2)
  assert.ok(peakBytes > 50 * MIB && peakBytes < 76 * MIB, `${peakBytes} bytes`)
})

hostileInSweep(
  'a training that uses up the inodes of the disk is stopped before, and all that it made is removed',
  async () => {
    const trainer = `
for (let n = 0; n < 20_000; n++) { fs.closeSync(fs.openSync(dir + '/e' + n, 'w')); if (n % 5 === 0) await sleep(1) }`
    await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, trainer } })
    await using disk = ownDisk(rig, 'ext4', 400, '-N', '4000')
    const { freeInodes } = disk.account()
    let leastInodes = freeInodes
    const timer = setInterval(() => (leastInodes = Math.min(leastInodes, disk.account().freeInodes)), 5)

    const { exitCode, events } = await rig.run(['core', '--json'])

    clearInterval(timer)
    assert.is(exitCode, 3)
    const reasons = events.flatMap(it => (it.event === 'job.fail' ? [it.message] : []))
    assert.match(reasons.join(), /^Stopped core: its files use up the inodes of the disk, \d+ free/)
    assert.ok(
      leastInodes > 20 && leastInodes < freeInodes / 3,
      `${leastInodes} of ${freeInodes} inodes were left`,
    )
    assert.ok(disk.account().freeInodes > freeInodes - 50)
  },
)

hostileInSweep('checkpoints are pruned for the sake of inodes as for that of bytes', async () => {
  const trainer = `
for (let n = 0; n < 4500; n++) { fs.closeSync(fs.openSync(dir + '/e' + n + '.checkpoint', 'w')); if (n % 5 === 0) await sleep(1) }
${publishes}`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, trainer } })
  await using _disk = ownDisk(rig, 'ext4', 400, '-N', '2000')

  const { exitCode, events } = await rig.run(['core', '--json'])

  assert.is(exitCode, 0)
  assert.ok(events.filter(it => it.event === 'storage.prune').length > 2500)
  const told = events.filter(
    it =>
      it.event === 'warning' &&
      /runs out of inodes, \d+ of \d+ are used, so its oldest checkpoints go/.test(it.message),
  )
  assert.is(told.length, 1)
})

hostileInSweep('a disk without inodes is told as that before a start', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1 } })
  await using disk = ownDisk(rig, 'ext4', 100, '-N', '200')
  let filled = 0
  const fill = (left: number) => {
    for (let n = disk.account().freeInodes; n > left; n--)
      writeFileSync(join(rig.modelsDir, `fill-${filled++}`), '')
  }

  fill(40)
  const few = await rig.run(['core'])
  fill(0)
  const none = await rig.run(['core'])
  for (const name of readdirSync(rig.modelsDir))
    if (name !== 'core' && !name.startsWith('fill')) rmSync(join(rig.modelsDir, name), { recursive: true })
  fill(0)
  const noFolder = await rig.run(['core'])

  assert.equal([few.exitCode, none.exitCode, noFolder.exitCode], [3, 3, 3])
  assert.match(few.stdout, /Cannot start core: \d+ inodes free/)
  assert.match(none.stdout, /Cannot start core: 0 inodes free/)
  assert.match(noFolder.stderr, /no inode is left on that disk/)
})

hostileInSweep(
  'others that fill the disk after pruning found too little end the training with 3',
  async () => {
    const trainer = `
fs.writeFileSync(dir + '/ballast', Buffer.alloc(56 * 2 ** 20)); await sleep(60_000)`
    await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, trainer } })
    await using disk = ownDisk(rig, 'ext4', 200)
    const run = rig.start(['core', '--json'])
    await untilEvent(rig, 'train.resume')

    for (let n = 0; disk.account().freeBytes > 30 * MIB; n++) {
      writeFileSync(join(rig.modelsDir, `others-${n}`), Buffer.alloc(2 * MIB))
      await delay(5)
    }
    const { exitCode, events } = await run.ended

    assert.is(exitCode, 3)
    const reasons = events.flatMap(it => (it.event === 'job.fail' ? [it.message] : []))
    assert.match(reasons.join(), /other programs fill the disk/)
    assert.ok(existsSync(join(rig.modelsDir, 'core/work/ballast')))
  },
)

hostileInSweep(
  'others that write at the same time make the training stand still now and then, and no more',
  async () => {
    const trainer = `await sleep(4000); ${publishes}`
    await using rig = await trainerRig({ core: { maxDiskMb: 40, minFreeMb: 1, trainer } })
    await using _disk = ownDisk(rig, 'ext4', 1000)
    const run = rig.start(['core', '--json'])
    await untilEvent(rig, 'train.start')
    let isOver = false
    void run.ended.then(() => (isOver = true))

    for (let n = 0; n < 400 && !isOver; n++) {
      writeFileSync(join(rig.modelsDir, `others-${n}`), Buffer.alloc(2 * MIB))
      await delay(8)
    }
    const { exitCode, events } = await run.ended

    assert.is(exitCode, 0)
    const pauses = events.flatMap(it => (it.event === 'train.resume' ? [it.pausedMs] : []))
    const pausedMs = pauses.reduce((sum, ms) => sum + ms, 0)
    assert.ok(pauses.length >= 1 && pausedMs < 1000, `${pauses.length} pauses, ${pausedMs} ms`)
  },
)

hostileInSweep('others that free space at the same time hide growth for a moment only', async () => {
  const trainer = `
for (let n = 0; n < 400; n++) { fs.writeFileSync(dir + '/part-' + n, Buffer.alloc(2 ** 20)); await sleep(10) }`
  await using rig = await trainerRig({ core: { maxDiskMb: 60, minFreeMb: 1, trainer } })
  await using _disk = ownDisk(rig, 'ext4', 1000)
  for (let n = 0; n < 250; n++) writeFileSync(join(rig.modelsDir, `others-${n}`), Buffer.alloc(2 * MIB))
  const run = rig.start(['core', '--json'])
  await untilEvent(rig, 'train.start')
  let isOver = false
  void run.ended.then(() => (isOver = true))

  for (let n = 0; n < 250 && !isOver; n++) {
    rmSync(join(rig.modelsDir, `others-${n}`))
    await delay(8)
  }
  const { exitCode, events } = await run.ended

  assert.is(exitCode, 2)
  const most = Math.max(...events.flatMap(it => (it.event === 'quota.exceeded' ? [it.usedBytes] : [])))
  assert.ok(most < 80 * MIB, `${most} bytes used`)
})

hostileInSweep('what takes no blocks is removed after a violation like everything else', async () => {
  const script = `
import os, sys
out = sys.argv[1]; os.makedirs(f'{out}/deep/er'); open(f'{out}/step-1.checkpoint', 'wb').write(b'x' * 5000)
open(f'{out}/empty', 'w').close(); os.symlink('/etc', f'{out}/link'); os.mkfifo(f'{out}/fifo'); os.mkfifo(f'{out}/deep/er/fifo')
for n in range(200): open(f'{out}/part-{n}', 'wb').write(bytes(2 ** 20))`
  await using rig = await trainerRig({ core: { maxDiskMb: 30, ...python(script) } })

  const { exitCode } = await rig.run(['core'])

  assert.is(exitCode, 2)
  assert.equal(readdirSync(join(rig.modelsDir, 'core/work')).sort(), [
    'cache',
    'home',
    'step-1.checkpoint',
    'tmp',
  ])
})

for (const [words, testHere] of [
  ['OSError: [Errno 28] No space left on device', test],
  ['HTTPError: 413: File too large', inSweep],
] as const)
  testHere(
    `a training that ends with "${words}" far inside its limit has failed, and nothing of it is deleted`,
    async () => {
      const trainer = `
fs.writeFileSync(dir + '/resume.json', '{}'); console.log(${JSON.stringify(words)}); process.exit(1)`
      await using rig = await trainerRig({ core: { maxDiskMb: 30, trainer } })

      const { exitCode, events } = await rig.run(['core', '--json'])

      assert.is(exitCode, 1)
      assert.ok(events.some(it => it.event === 'job.fail' && it.message.includes(words)))
      assert.ok(existsSync(join(rig.modelsDir, 'core/work/resume.json')))
    },
  )

/** Both end with exit code 153, 128 and the number of SIGXFSZ; the first with a file of a few bytes. */
const ends: [how: string, command: string, stays: boolean][] = [
  ['says with its exit code alone that a file is at its limit loses nothing', 'exit 153', true],
  [
    'was ended at the limit of a file has violated its quota',
    'dd if=/dev/zero of={outputDir}/big bs=1M',
    false,
  ],
]
for (const [how, command, stays] of ends)
  hostile(`a training that ${how}`, async () => {
    const argv = ['sh', '-c', `echo hours > {outputDir}/resume.json; ${command}; exit $?`]
    await using rig = await trainerRig({ core: { maxDiskMb: 30, train: argv } })

    const { exitCode } = await rig.run(['core', '--json'])

    assert.is(exitCode, 2)
    assert.is(existsSync(join(rig.modelsDir, 'core/work/resume.json')), stays)
  })

inSweep(
  'a file that the kernel refuses beyond the limit is a violation, and nothing is deleted for it',
  async () => {
    const trainer = `
fs.writeFileSync(dir + '/resume.json', '{}'); fs.writeFileSync(dir + '/big', ''); fs.truncateSync(dir + '/big', 2 ** 30)`
    await using rig = await trainerRig({ core: { maxDiskMb: 30, trainer } })

    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 2)
    assert.ok(
      events.some(it => it.event === 'quota.exceeded' && it.message.includes('asked for a file larger')),
    )
    assert.ok(existsSync(join(rig.modelsDir, 'core/work/resume.json')))
  },
)

const MANY_FILES = 150_000

skipUnless(
  inSweep,
  canAttack,
  needs,
)('SIGTERM is heard at once while a folder of very many files is watched, and pruned', async () => {
  const script = `
import os, sys, time
out = sys.argv[1]
for n in range(${MANY_FILES}): os.close(os.open(f'{out}/{n}.checkpoint', os.O_CREAT))
print('made', flush=True); time.sleep(60)`
  await using rig = await trainerRig({ core: { maxDiskMb: 100, ...python(script) } })
  const run = rig.start(['core', '--json'])
  const last = join(rig.modelsDir, `core/work/${MANY_FILES - 1}.checkpoint`)
  await until('the files are made', () => existsSync(last), 60_000)
  await delay(500)

  const heard = new Promise<number>(resolve => {
    run.child.stdout!.on('data', text => String(text).includes('SIGTERM') && resolve(performance.now()))
  })
  const sentMs = performance.now()
  run.child.kill('SIGTERM')
  const tookMs = (await heard) - sentMs
  const { exitCode } = await run.ended

  assert.is(exitCode, 143)
  assert.ok(tookMs < 250, `${tookMs} ms`) // this machine may be busy
  assert.ok((await checkUsage(join(rig.modelsDir, 'core'))) < 100 * MIB)
})

const tenThousand = Array.from(
  { length: 10_000 },
  (_, n) => `${n}-${createHash('sha256').update(`${n}`).digest('hex')}`,
)

/** Things that btrfs keeps in its tree, and not in blocks of their own. */
const inTheTree: Record<string, (dir: string) => void> = {
  'empty files': dir => {
    for (const name of tenThousand) writeFileSync(join(dir, name), '')
  },
  'long names of one file': dir => {
    writeFileSync(join(dir, 'first'), '')
    for (const name of tenThousand) linkSync(join(dir, 'first'), join(dir, name.padEnd(250, '-')))
  },
  'links to long paths': dir => {
    for (const name of tenThousand) symlinkSync('t'.repeat(2001), join(dir, name))
  },
  'small files': dir => {
    for (const name of tenThousand) writeFileSync(join(dir, name), 's'.repeat(1000))
  },
}

onBtrfs(
  'names, links and small files are charged for what btrfs takes for them, and at most for twice as much',
  async () => {
    await using rig = await trainerRig()
    await using _disk = ownDisk(rig, 'btrfs', 800)
    for (const [what, make] of Object.entries(inTheTree)) {
      const dir = rig.path('disk', what)
      mkdirSync(dir)
      const used = () => {
        must('btrfs', 'filesystem', 'sync', dir)
        const { blocks, bfree, bsize } = statfsSync(dir)
        return (blocks - bfree) * bsize
      }
      const before = used()

      make(dir)

      const takenBytes = used() - before
      const chargedBytes = await checkUsage(dir)
      assert.ok(Number.isInteger(chargedBytes), `${chargedBytes}`)
      assert.ok(
        chargedBytes > takenBytes && chargedBytes < 2 * takenBytes,
        `${what}: ${chargedBytes} charged of ${takenBytes}`,
      )
    }
  },
)

for (const kind of ['xfs', 'btrfs'] as const) {
  const onKind = skipUnless(
    inSweep,
    hasLoopDevices && canRun(`mkfs.${kind}`),
    `needs root, loop devices and what makes ${kind}`,
  )
  onKind(
    `a file that grows, and is overwritten in place, takes its size on ${kind} and no more, in an old folder too`,
    async () => {
      const trainer = `
const block = (await import('node:crypto')).randomBytes(2 ** 20)
const fd = fs.openSync(dir + '/old/deep/log.bin', 'w')
for (let n = 0; n < 85; n++) { fs.writeSync(fd, block); await sleep(5) }
fs.fsyncSync(fd)
for (let round = 0; round < 3; round++) {
  for (let n = 0; n < 85; n++) fs.writeSync(fd, block, 0, 2 ** 20 - 4096, n * 2 ** 20)
  fs.fsyncSync(fd)
}
fs.closeSync(fd)
fs.rmSync(dir + '/old', { recursive: true })
${publishes}`
      await using rig = await trainerRig({ core: { maxDiskMb: 100, trainer } })
      await using disk = ownDisk(rig, kind, 600)
      const old = join(rig.modelsDir, 'core/work/old')
      mkdirSync(join(old, 'deep'), { recursive: true })
      spawnSync('mkfifo', [join(old, 'pipe')])
      if (kind === 'btrfs') must('chattr', '+c', old)
      const seen = disk.watch(100 * MIB)

      const { exitCode, events } = await rig.run(['core', '--json'])

      const { peakBytes } = seen()
      const told = events.flatMap(it => ('message' in it && it.event !== 'run.done' ? [it.message] : []))
      assert.is(exitCode, 0, told.join('\n'))
      assert.ok(peakBytes < 100 * MIB, `${peakBytes} bytes`)
    },
  )

  onKind(`without the program that ends it a run on ${kind} says what its files may take`, async () => {
    await using rig = await trainerRig()
    await using _disk = ownDisk(rig, kind, 600)
    const program = kind === 'xfs' ? 'xfs_io' : 'chattr'
    const [path] = must('sh', '-c', `command -v ${program}`).split('\n')
    const hides = `mount --bind /dev/null "$0" && exec "$@"`

    const { exitCode, events } = await rig.run(['core', '--json'], {
      prefix: ['unshare', '-m', 'sh', '-c', hides, path!],
    })

    const warnings = events.flatMap(it => (it.event === 'warning' ? [it.message] : []))
    assert.is(exitCode, 0)
    assert.match(warnings.join(), new RegExp(`^without ${program} .* quota .*: .*${program}`))
  })
}

onBtrfs('a healthy training survives its first prunes on a btrfs of its own, which frees late', async () => {
  const trainer = `
for (let n = 1; n <= 9; n++) {
  fs.mkdirSync(dir + '/tmp-' + n)
  for (let k = 0; k < 4; k++) {
    const fd = fs.openSync(dir + '/tmp-' + n + '/m' + k, 'w')
    for (let m = 0; m < 26; m++) { fs.writeSync(fd, (await import('node:crypto')).randomBytes(2 ** 18)); await sleep(2) }
    fs.fsyncSync(fd); fs.closeSync(fd)
  }
  fs.renameSync(dir + '/tmp-' + n, dir + '/checkpoint-' + n)
}
${publishes}`
  await using rig = await trainerRig({ core: { maxDiskMb: 200, prune: ['checkpoint-*'], trainer } })
  const image = rig.path('core.img')
  writeFileSync(image, '')
  spawnSync('truncate', ['-s', '200M', image])
  spawnSync('mkfs.btrfs', ['-q', image])
  spawnSync('mkdir', ['-p', join(rig.modelsDir, 'core')])
  spawnSync('mount', ['-o', 'loop', image, join(rig.modelsDir, 'core')])
  try {
    const { exitCode, events } = await rig.run(['core', '--json'])

    assert.is(exitCode, 0)
    assert.ok(events.some(it => it.event === 'storage.prune'))
    assert.ok(events.some(it => it.event === 'job.start' && it.guarantee.startsWith('kernel')))
  } finally {
    spawnSync('umount', [join(rig.modelsDir, 'core')])
  }
})

test.run()
