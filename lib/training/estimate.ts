import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { foldersIn } from '../settings/layout.ts'
import { accountOf } from '../storage/capacity.ts'
import type { Figures } from './limit.ts'

/**
 * Estimates a job's usage between two looks at its folder: what the last look found, and what its filesystem has been filled
 * by since, whoever did that. To ask takes 3 µs, whatever the folder holds. What others write counts as the job's; what
 * others free hides as much of what it writes.
 */
export class Estimate {
  readonly #dir: string
  #last: Figures
  #account: Figures

  /** @param account of the filesystem, from before the look that found `figures` */
  constructor(dir: string, figures: Figures, account: Figures) {
    this.#dir = dir
    this.#last = figures
    this.#account = account
  }

  /** @param nowHeld the filesystem's account now */
  now(nowHeld = accountOf(this.#dir)): Figures {
    return this.after(this.#last, this.#account, nowHeld)
  }

  /** The same for other figures, and the filesystem's account from before they were found. */
  after(figures: Figures, account: Figures, nowHeld = accountOf(this.#dir)): Figures {
    const { usedBytes, usedInodes, freeBytes, freeInodes } = nowHeld
    return {
      usedBytes: Math.max(0, figures.usedBytes + usedBytes - account.usedBytes),
      usedInodes: Math.max(0, figures.usedInodes + usedInodes - account.usedInodes),
      freeBytes,
      freeInodes,
    }
  }

  /** Go on from another look. */
  set(figures: Figures, account: Figures): void {
    this.#last = figures
    this.#account = account
  }
}

const PROBE_BYTES = 2 ** 20
/** Others may write and delete at the same time: so many of the attempts must show what was written, and little else. */
const ATTEMPTS = 6
const HITS = 3

/**
 * Does the filesystem of a job count at once what is written? Some count late (btrfs, ZFS, NFS), some compress. Found
 * out by trying, in the folder for temporary files, before the job's training runs.
 */
export function countsAtOnce(jobDir: string): boolean {
  const path = join(foldersIn(jobDir).tmpDir, 'probe.tmp')
  let hits = 0
  for (let attempt = 0; attempt < ATTEMPTS && hits < HITS; attempt++) {
    const before = accountOf(jobDir).usedBytes
    try {
      // Nothing compresses better than zeros.
      writeFileSync(path, Buffer.alloc(PROBE_BYTES), { flag: 'wx', mode: 0o600 })
      const growth = accountOf(jobDir).usedBytes - before
      if (growth >= PROBE_BYTES && growth < 1.5 * PROBE_BYTES) hits++
    } catch {
      // Full: it makes no difference then.
    }
    rmSync(path, { force: true })
  }
  return hits === HITS
}
