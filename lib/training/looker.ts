import { setTimeout as delay } from 'node:timers/promises'
import { isErrno, TrainerError } from '../errors.ts'
import { accountOf, type FilesystemAccount } from '../storage/capacity.ts'
import { type Measurement, measure } from '../storage/measure.ts'
import type { Globs } from '../storage/rules.ts'
import { syncFilesystem } from '../system/durable.ts'
import { freeLostSockets } from '../system/lost-sockets.ts'
import { MIB } from '../text.ts'
import { Elsewhere, type Standing } from './elsewhere.ts'
import { Estimate } from './estimate.ts'
import { type HeldFiles, heldFiles, nothingHeld } from './held-files.ts'
import type { Amounts, Figures, Limit, Start } from './limit.ts'
import type { Crew, Training } from './process.ts'
import type { Counters } from './unfound.ts'

/** Growth that is not others' doing: filesystems take something for themselves while files grow. */
const NOISE = { bytes: MIB, inodes: 64 }
/** A deleted file or folder may take so much besides what was written to it: for its attributes, and for a folder's first names. */
const BESIDES_BYTES = 8192
/** Deleted files may come free so much later (btrfs, ZFS, XFS). */
const LATE_FREE_MS = 10_000
/** How long to watch others write while the training stands still. */
const OTHERS_MS = 100

/** One look at the job's folder. */
export type Look = Figures &
  Pick<Measurement, 'prunable' | 'isCut'> & {
    /** By the walk, and held although deleted. */
    countedBytes: number
    /** The same without what is charged of sparse files beyond their blocks. */
    allocatedBytes: number
    /** The part of it that is in the folder. */
    folderBytes: number
    held: HeldFiles
    /** The part of `usedBytes` that nobody has seen: it is missing on the disk, and may be held by the training. */
    hiddenBytes: number
    /** The filesystem's account from before the walk. */
    account: FilesystemAccount
  }

/** Whose bytes are counted, and on what. */
export type Looked = Limit & {
  training: Pick<Training, 'processes' | 'stopUnseen' | 'isFiltered' | 'bytesWritten' | 'crew' | 'firstCrew'>
  rules: Globs
  /** The figures from before the training began. */
  start: Start
  /** Does the filesystem count at once what is written? */
  countsAtOnce: boolean
}

/**
 * Counts what a running training uses: what is in the job's folder, what is deleted but held, and what is hidden where nobody
 * may look. Only a look at a training that stands still can be trusted.
 */
export class Looker {
  /** When the training began; ms since the epoch. */
  readonly sinceMs = Date.now()
  readonly #looked: Looked
  readonly #signal: AbortSignal
  readonly #sinceNs = BigInt(this.sinceMs) * 10n ** 6n
  /** The kernel's count beside files, on a filesystem of the job's own. */
  readonly #overheadBytes: number
  /** From the last look at a training that stood still; others may have freed space since. */
  readonly #standing: Estimate
  /** Bytes that others wrote in a millisecond during that look. */
  #others = { bytesPerMs: 0, sinceMs: 0 }
  /** Bytes that were missing at the last counts and taken for noise each time: they may be a training's that takes little at a time. */
  #passedOverBytes = 0
  /** When that was, and what the training held that nobody may look at. */
  #stoodMs = performance.now()
  #held: Pick<HeldFiles, 'unseen'> & { hiddenBytes: number } = { unseen: new Set(), hiddenBytes: 0 }

  /** Undefined where files may take more than what is written to them, as for attributes, or it is told late. */
  readonly #elsewhere: Elsewhere | undefined
  /** By the last look at a standing training, and who that was. */
  #elsewhereBytes = 0
  #crew: Crew | undefined

  /** @param signal tells that the training has ended, which ends a look */
  constructor(looked: Looked, signal: AbortSignal) {
    this.#looked = looked
    this.#signal = signal
    this.#standing = new Estimate(looked.dir, looked.start, looked.start.account)
    const { start, training } = looked
    const counters = { writtenBytes: 0, accountBytes: start.account.usedBytes }
    const before = { counters, crew: training.firstCrew, folderBytes: start.walkedBytes }
    if (!looked.isCapped && looked.countsAtOnce && training.isFiltered)
      this.#elsewhere = new Elsewhere(before, this.#stoodMs)
    this.#overheadBytes = looked.isCapped ? looked.start.usedBytes - looked.start.walkedBytes : 0
  }

  /**
   * Count what is in the folder. While the training runs it may hide from a walk, by renaming folders to where the walk
   * has been.
   */
  async count(signal = this.#signal): Promise<Look> {
    const { job, dir, rules, isCapped } = this.#looked
    const account = accountOf(dir)
    const options = { ...rules, liveSinceNs: this.#sinceNs, signal }
    const { usedBytes, allocatedBytes, usedInodes, prunable, isCut } = await measure(dir, options).catch(
      error => {
        if (!isErrno(error.cause, 'EACCES')) throw error
        const message = `Stopped ${job}: its training keeps a folder of its own from being counted. ${error.message}`
        throw new TrainerError('training-failed', message, { cause: error })
      },
    )
    const look = {
      usedBytes,
      allocatedBytes,
      folderBytes: allocatedBytes,
      usedInodes,
      prunable,
      isCut,
      account,
      held: nothingHeld(),
      hiddenBytes: 0,
      countedBytes: usedBytes,
    }
    const { freeBytes, freeInodes, ...own } = accountOf(dir)
    if (!isCapped) return { ...look, freeBytes, freeInodes }
    // The kernel's account is all that counts, but it may be late.
    const soonBytes = this.#looked.countsAtOnce ? 0 : usedBytes + this.#overheadBytes
    return { ...look, ...own, freeBytes, freeInodes, usedBytes: Math.max(own.usedBytes, soonBytes) }
  }

  /** Count what is in the folder and what is held while the training runs. */
  async countMoving(signal: AbortSignal): Promise<Look> {
    return this.#addHeld(await this.count(signal), false, signal)
  }

  /**
   * Count while the training stands still, and note what others write meanwhile.
   *
   * @param signal ends the count, by its reason
   */
  async countStanding(expected: Figures, signal: AbortSignal): Promise<Look> {
    const { dir } = this.#looked
    const sinceMs = performance.now()
    const before = accountOf(dir).usedBytes
    const look = await this.#countStanding(expected, signal)
    const theirBytes = Math.max(0, accountOf(dir).usedBytes - before)
    this.#others = { bytesPerMs: theirBytes / (performance.now() - sinceMs), sinceMs }
    return look
  }

  /** Note what the last look at a standing training found, and what was pruned then. */
  trust(look: Look): void {
    this.#standing.set(look, look.account)
    this.#elsewhere?.set(this.#standingAt(look), this.#elsewhereBytes, performance.now())
  }

  #mostElsewhere(look: Look): number {
    return this.#elsewhere?.mostBytes(this.#standingAt(look), performance.now()) ?? Number.POSITIVE_INFINITY
  }

  #standingAt({ folderBytes }: Look): Standing {
    return { counters: this.counters(), crew: this.#crew, folderBytes }
  }

  /** Note how full the disk is while the training runs. */
  note({ usedBytes }: FilesystemAccount): void {
    this.#elsewhere?.note(usedBytes, performance.now())
  }

  /** The kernel's counters now. */
  counters(): Counters {
    return {
      writtenBytes: this.#looked.training.bytesWritten(),
      accountBytes: accountOf(this.#looked.dir).usedBytes,
    }
  }

  /** Add what is deleted but held; the kernel has counted it on a filesystem of the job's own. */
  async #addHeld(look: Look, isThorough: boolean, signal = this.#signal): Promise<Look> {
    const { dir, training, isCapped, countsAtOnce } = this.#looked
    if (isCapped && countsAtOnce) return look
    const options = { dir, sinceMs: this.sinceMs, isThorough, threadsShareFiles: training.isFiltered, signal }
    const held = await heldFiles(training.processes(), options)
    const { deletedBytes, deletedInodes } = held
    // Bytes found hidden at the last standstill stay hidden as long as they are held.
    const hiddenBytes = !isThorough && (held.unseen.size || held.outOfSight) ? this.#held.hiddenBytes : 0
    return {
      ...look,
      held,
      hiddenBytes,
      countedBytes: look.countedBytes + deletedBytes,
      allocatedBytes: look.allocatedBytes + held.allocatedBytes,
      usedBytes: look.usedBytes + deletedBytes + hiddenBytes,
      usedInodes: look.usedInodes + (isCapped ? 0 : deletedInodes),
    }
  }

  /**
   * Is a look at a moving training to be believed: it holds nothing new that nobody may look at, and what the account has and
   * the walk has not seen is no more than others write? Else the training may have hidden it, by renaming.
   */
  isTrusted({ usedBytes, held }: Look): boolean {
    if ([...held.unseen].some(id => !this.#held.unseen.has(id))) return false
    const theirBytes = 2 * this.#others.bytesPerMs * (performance.now() - this.#others.sinceMs)
    return this.#standing.now().usedBytes - usedBytes <= theirBytes + NOISE.bytes
  }

  /**
   * Count while nothing of the training moves. What is missing on the disk and in no file is the training's too if it
   * holds deleted files of which this user cannot tell the size, and others do not write.
   */
  async #countStanding(expected: Figures, signal: AbortSignal): Promise<Look> {
    const { dir, training, isCapped, countsAtOnce } = this.#looked
    const standingBytes = this.#standing.now().usedBytes
    const [counted, crew] = await Promise.all([this.count(signal), this.#elsewhere && training.crew()])
    this.#crew = crew
    this.#elsewhereBytes = this.#mostElsewhere(counted)
    // Either others write, or somebody of the training whom nobody has met yet.
    const grownBytes = Math.max(0, accountOf(dir).usedBytes - counted.account.usedBytes)
    const passedOverBytes = this.#passedOverBytes
    // There may be a million descriptors: they are looked at only where they can make a difference.
    const restBytes = passedOverBytes + Math.max(0, expected.usedBytes - counted.usedBytes) + grownBytes
    const areInodesExplained = expected.usedInodes - counted.usedInodes < NOISE.inodes
    const isExplained = countsAtOnce && restBytes < NOISE.bytes && areInodesExplained
    if (isExplained) this.#passedOverBytes = restBytes
    if (isExplained || counted.usedBytes > this.#looked.limitBytes)
      return { ...counted, account: accountOf(dir) }
    let look = await this.#addHeld(counted, true, signal)
    if (isCapped) return look
    let missingBytes = passedOverBytes + standingBytes - look.usedBytes
    if (missingBytes > NOISE.bytes) {
      const { usedBytes } = accountOf(dir)
      await freeLostSockets()
      missingBytes -= Math.max(0, usedBytes - accountOf(dir).usedBytes)
    }
    // It may be held by processes that nobody has met yet.
    if (missingBytes + grownBytes > NOISE.bytes && (await training.stopUnseen())) {
      const before = look.usedBytes
      look = await this.#addHeld(await this.count(signal), true, signal)
      missingBytes -= look.usedBytes - before
      this.#elsewhereBytes = this.#mostElsewhere(look)
    }
    this.#passedOverBytes = missingBytes > NOISE.bytes ? 0 : Math.max(0, missingBytes)
    const hiddenBytes = await this.#hiddenBytes(look, missingBytes)
    // Growth by others meanwhile is not the training's.
    return { ...look, hiddenBytes, usedBytes: look.usedBytes + hiddenBytes, account: accountOf(dir) }
  }

  /** How much of what is `missingBytes` the training holds where nobody may look. */
  async #hiddenBytes({ held }: Look, missingBytes: number): Promise<number> {
    const { unseen, outOfSight, goneFolders, allocatedBytes } = held
    const elapsedMs = performance.now() - this.#stoodMs
    this.#stoodMs = performance.now()
    const mayHide = unseen.size > 0 || outOfSight > 0
    if (!mayHide) this.#elsewhereBytes = allocatedBytes
    let hiddenBytes = 0
    if (mayHide && missingBytes > NOISE.bytes) {
      const isNew = outOfSight > 0 || [...unseen].some(id => !this.#held.unseen.has(id))
      if (isNew) {
        const theirsPerMs = await this.#growthByOthers()
        const mostBytes = goneFolders
          ? Number.POSITIVE_INFINITY
          : this.#elsewhereBytes - allocatedBytes + outOfSight * BESIDES_BYTES
        hiddenBytes = Math.min(mostBytes, missingBytes - 2 * theirsPerMs * elapsedMs)
      } else hiddenBytes = Math.min(missingBytes, this.#held.hiddenBytes)
    }
    hiddenBytes = Math.max(0, hiddenBytes)
    this.#held = { unseen, hiddenBytes }
    return hiddenBytes
  }

  /** Bytes a millisecond that others write while the training stands still. */
  async #growthByOthers(): Promise<number> {
    const { dir } = this.#looked
    const before = accountOf(dir).usedBytes
    await delay(OTHERS_MS, undefined, { signal: this.#signal })
    return Math.max(0, accountOf(dir).usedBytes - before) / OTHERS_MS
  }

  /** Look again, for a while where the filesystem frees late: a training that goes on sooner finds it full. */
  async countAfter(before: Look, freedBytes: number, isTooMuch: (look: Look) => boolean): Promise<Look> {
    const { dir, isCapped, countsAtOnce } = this.#looked
    const endMs = performance.now() + LATE_FREE_MS
    // btrfs gives out again what was deleted only when it has been written out twice.
    for (let round = 0; round < 2 && !countsAtOnce; round++) await syncFilesystem(dir)
    for (;;) {
      const look = await this.count()
      const account = accountOf(dir)
      // The held files have not changed: the training stands still, and nothing that it has open was pruned.
      const { held, hiddenBytes } = before
      const heldBytes = isCapped ? 0 : held.deletedBytes + hiddenBytes
      const usedInodes = look.usedInodes + (isCapped ? 0 : before.held.deletedInodes)
      const now = { ...look, held, hiddenBytes, usedBytes: look.usedBytes + heldBytes, usedInodes, account }
      const lateBytes = isCapped
        ? account.usedBytes - look.countedBytes - before.held.deletedBytes - this.#overheadBytes
        : before.freeBytes + freedBytes - look.freeBytes
      const isLate = lateBytes > Math.max(freedBytes / 2, NOISE.bytes)
      // Where the disk holds more than the quota it makes no difference, and what seems to come late others may have written.
      const helps = isTooMuch(now) && !isTooMuch({ ...now, freeBytes: now.freeBytes + lateBytes })
      const matters = isCapped ? !countsAtOnce : helps
      if (!isLate || !matters || performance.now() > endMs) return now
      await syncFilesystem(dir)
      await delay(OTHERS_MS, undefined, { signal: this.#signal })
    }
  }
}

/** The filesystem's account is a little ahead of what is in files, whoever writes. */
export function withNoise({ usedBytes, usedInodes }: Figures): Amounts {
  return { bytes: usedBytes + NOISE.bytes, inodes: usedInodes + NOISE.inodes }
}
