import { MIB } from '../../lib/text.ts'
import type { FakeTrainer } from '../support/rig.ts'

/** A way to outgrow a quota as fast as it goes. */
export type Writer = {
  what: string
  quotaMb: number
  trainer: (tempDir: string) => FakeTrainer
  /** At most this much above the quota while it is watched, where that is promised. */
  watchAimBytes?: number
  /** So many empty files are there before, which are not on the volume. */
  files?: number
}

/** Where they write who write beside files that are there. */
export const BURST = 'burst'

/** Nothing stops some of them but themselves. */
const EXCESS_MB = 2048

const manyFiles = (dir: string, quotaMb: number) => `
const block = Buffer.alloc(${MIB}, 1)
for (let n = 0; n < ${quotaMb + EXCESS_MB}; n++) fs.writeFileSync(${dir} + '/part-' + n, block)`

const oneFile = (quotaMb: number) => `
const block = Buffer.alloc(${MIB}, 1)
const fd = fs.openSync(dir + '/part', 'w')
for (let n = 0; n < ${quotaMb + EXCESS_MB}; n++) fs.writeSync(fd, block)`

/** Where it is not refused it takes no time: what follows stands for a training that then goes on. */
const reserving = (quotaMb: number) => `
for (let n = 0; n < 8; n++) {
  const { status } = spawnSync('fallocate', ['-l', '${quotaMb / 4}MiB', dir + '/part-' + n], { stdio: 'ignore' })
  if (status) break
}
${manyFiles('dir', quotaMb)}
await sleep(3000)`

const inPython = (script: string) => `
spawnSync('/usr/bin/python3', ['-c', ${JSON.stringify(script)}, dir], { stdio: 'inherit' })`

/** Each file is as large as may be: a quarter of the quota. */
const posixReserving = (quotaMb: number) =>
  inPython(`
import os, sys
for n in range(40):
  fd = os.open(f'{sys.argv[1]}/part-{n}', os.O_RDWR | os.O_CREAT)
  os.posix_fallocate(fd, 0, ${quotaMb / 4} * 2 ** 20)`)

const mapping = (quotaMb: number) =>
  inPython(`
import mmap, os, sys
block = bytes(2 ** 20)
for n in range(40):
  fd = os.open(f'{sys.argv[1]}/part-{n}', os.O_RDWR | os.O_CREAT)
  for at in range(0, ${quotaMb / 4} * 2 ** 20, 2 ** 20):
    os.ftruncate(fd, at + 2 ** 20)
    with mmap.mmap(fd, 2 ** 20, offset=at) as m: m[:] = block`)

const manyWriters = inPython(`
import os, sys
block = bytes(2 ** 20)
for writer in range(100):
  if os.fork() == 0:
    for n in range(40):
      with open(f'{sys.argv[1]}/part-{writer}-{n}', 'wb') as f: f.write(block)
    os._exit(0)
for writer in range(100): os.wait()`)

const streaming: Writer = {
  what: '1 MiB writes into many files, 200 MiB quota',
  quotaMb: 200,
  trainer: () => manyFiles('dir', 200),
  watchAimBytes: 16 * MIB,
}

/** The ways that are bursts, or nearly. */
const bursts: Writer[] = [
  {
    what: '`fallocate` of eight files, each a quarter of the 200 MiB quota',
    quotaMb: 200,
    trainer: () => reserving(200),
    watchAimBytes: 32 * MIB,
  },
  {
    what: '`posix_fallocate` of 50 MiB files, 200 MiB quota',
    quotaMb: 200,
    trainer: () => posixReserving(200),
    watchAimBytes: 32 * MIB,
  },
  {
    what: 'files that grow by mmap, 200 MiB quota',
    quotaMb: 200,
    trainer: () => mapping(200),
    watchAimBytes: 32 * MIB,
  },
  {
    what: '100 writers at once, 200 MiB quota',
    quotaMb: 200,
    trainer: () => manyWriters,
    watchAimBytes: 32 * MIB,
  },
]

/** The same beside so many files that are there already, and empty. */
function beside(count: number, writer: Writer): Writer {
  return {
    ...writer,
    what: `${writer.what}, beside ${count.toLocaleString('en')} files`,
    files: count,
    trainer: tempDir =>
      `const burst = dir + '/${BURST}'\n{\nconst dir = burst\n${writer.trainer(tempDir)}\n}`,
  }
}

export const writers: Writer[] = [
  {
    what: '1 MiB writes into many files, 3 GiB quota',
    quotaMb: 3072,
    trainer: () => manyFiles('dir', 3072),
    watchAimBytes: 16 * MIB,
  },
  ...[100, 100_000, 600_000].map(count => beside(count, streaming)),
  {
    what: 'one growing file, 200 MiB quota',
    quotaMb: 200,
    trainer: () => oneFile(200),
    watchAimBytes: 0,
  },
  ...bursts,
  ...bursts.map(writer => beside(100_000, writer)),
  {
    what: 'temporary files in /tmp, 200 MiB quota',
    quotaMb: 200,
    trainer: tempDir => `
const tempDir = ${JSON.stringify(tempDir)}
fs.mkdirSync(tempDir, { recursive: true })${manyFiles('tempDir', 200)}`,
    watchAimBytes: 16 * MIB,
  },
]
