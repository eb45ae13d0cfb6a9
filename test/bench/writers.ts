import { MIB } from '../../lib/text.ts'
import type { FakeTrainer } from '../support/rig.ts'

/** A way to outgrow a quota as fast as it goes. */
export type Writer = {
  what: string
  quotaMb: number
  trainer: (tempDir: string) => FakeTrainer
  /** At most this much above the quota while it is watched, where that is promised. */
  watchAimBytes?: number
}

/** Nothing stops some of them but themselves. */
const EXCESS_MB = 2048

const manyFiles = (dir: string, quotaMb: number) => `
const block = Buffer.alloc(${MIB}, 1)
for (let n = 0; n < ${quotaMb + EXCESS_MB}; n++) fs.writeFileSync(${dir} + '/part-' + n, block)`

const oneFile = (quotaMb: number) => `
const block = Buffer.alloc(${MIB}, 1)
const fd = fs.openSync(dir + '/part', 'w')
for (let n = 0; n < ${quotaMb + EXCESS_MB}; n++) fs.writeSync(fd, block)`

/** It takes no time: what follows stands for a training that then goes on. */
const reserving = (quotaMb: number) => `
for (let n = 0; n < 8; n++) {
  const { status } = spawnSync('fallocate', ['-l', '${quotaMb / 4}MiB', dir + '/part-' + n], { stdio: 'inherit' })
  if (status) process.exit(1)
}
await sleep(3000)`

export const writers: Writer[] = [
  {
    what: '1 MiB writes into many files, 3 GiB quota',
    quotaMb: 3072,
    trainer: () => manyFiles('dir', 3072),
    watchAimBytes: 64 * MIB,
  },
  {
    what: 'one growing file, 200 MiB quota',
    quotaMb: 200,
    trainer: () => oneFile(200),
    watchAimBytes: 0,
  },
  {
    what: '`fallocate` of eight files, each a quarter of the 200 MiB quota',
    quotaMb: 200,
    trainer: () => reserving(200),
  },
  {
    what: 'temporary files in /tmp, 200 MiB quota',
    quotaMb: 200,
    trainer: tempDir => `
const tempDir = ${JSON.stringify(tempDir)}
fs.mkdirSync(tempDir, { recursive: true })${manyFiles('tempDir', 200)}`,
  },
]
