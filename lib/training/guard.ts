import { writeFileSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { TrainerError } from '../errors.ts'
import type { EventBody } from '../events.ts'
import { accountOf, type FilesystemAccount } from '../storage/capacity.ts'
import { unlessAborted } from '../system/abort.ts'
import { freeLostSockets } from '../system/lost-sockets.ts'
import { readProc } from '../system/processes.ts'
import { MIB } from '../text.ts'
import { Choice, type Chooser } from './choice.ts'
import { Estimate } from './estimate.ts'
import type { HeldFiles } from './held-files.ts'
import { describeHeld, lookAtHeld } from './held-words.ts'
import { type Amounts, type Figures, isAbove, limitNow } from './limit.ts'
import { type Look, type Looked, Looker, withNoise } from './looker.ts'
import type { Runs } from './process.ts'
import { Sentry } from './sentry.ts'
import { diskFull, endedByMistake, inodesGone, limitReached } from './space-failure.ts'
import { bytesBetween, Unfound } from './unfound.ts'

const FREEZE_ABOVE = 0.9
const PRUNE_TO = 0.8
/** Above it the training is about to be killed. */
const LAST_ABOVE = 0.97
/** Growth in a millisecond by many writers at full speed. */
const FASTEST = { bytes: 4 * MIB, inodes: 400 }
const MIN_WAIT_MS = 5
const MAX_WAIT_MS = 250
/** A writer that has just grown faster than this is looked at every millisecond where room is short. */
const HURRY_BYTES_PER_MS = MIB / 16
const HURRIED_WAIT_MS = 1
const HURRY_MS = 100
/** Many who make files faster than this keep whoever lists their folder waiting, for seconds; also when they pause a moment. */
const CROWDED_INODES_PER_MS = 1
const CROWDED_MS = 250
/** Walks take no more of the time than this. */
const WALK_SHARE = 1 / 150
/** They may take more when somebody has freed so much of the room, which hides as much growth from the filesystem's account. */
const FREEING_WALK_SHARE = 0.2
const FREED_SHARE = 1 / 16
/** Where the filesystem counts late only walks tell. */
const LATE_WALK_SHARE = 0.5
/** With room for them, walks come no more often than this; with less, as often as a fast writer could take half of it. */
const MAX_WALK_PAUSE_MS = 1000
const FAST_BYTES_PER_MS = MIB / 4
/** Stopping a training because of what others write must not take more of its time than this. */
const IDLE_STOP_SHARE = 0.05
/** A thread that writes to a slow disk stops when its system call returns; it is not hurried while all is well. */
const FREEZE_DEADLINE_MS = 60_000
/** The share of its limit that a training may write where no count finds it, while it is being stopped. */
const MOST_UNFOUND = 1 / 16
/** A process that waits in the kernel for so long without running is not writing: a writer that is held back runs every 200 ms. */
const STUCK_MS = 250
/** While it does not stop the kernel is asked again, first after so long, and each time twice as late. */
const PRESS_MS = 25
const MOST_PRESS_MS = 1000
/** While it is counted it is looked at so often, for a twentieth of the time at most. */
const WAKE_LOOK_MS = 10
const WAKE_LOOK_SHARE = 0.05
/** A training that is stopped is woken so often by chance, such as an operator's SIGCONT. */
const MOST_WAKES = 5
const TELL_EVERY_MS = 1000
/** So long it is remembered how full it was. */
const FULLEST_MS = 2000

export type Watch = Looked &
  Chooser & {
    emit: (event: EventBody) => void
    onLook: (figures: Figures) => void
  }

/**
 * Keep a running training inside its limit until `signal` says that it has ended. Above 90 % it is frozen, the oldest
 * checkpoints are pruned down to 80 %, and it is resumed; inodes are treated as bytes are.
 *
 * Walking the folder tells exactly, but only while nothing moves in it, and takes time. So walks are rare, and between
 * them the filesystem's own account tells: when it has grown by as much as there is room, the training is stopped first
 * and the folder walked then.
 *
 * @returns how full it was in the last seconds: a training that finds no room may delete what it could not finish
 * @throws {TrainerError} `quota-exceeded`, or `no-space` if the disk holds no more; the training is dead then
 */
export async function guard(watch: Watch, signal: AbortSignal): Promise<Figures> {
  const giveBack = preferUs()
  const guarding = new Guard(watch, signal)
  try {
    await guarding.run()
  } catch (error) {
    // The end of the training interrupts a look: that is no failure. What it has left running may have its grace.
    if (!signal.aborted || error instanceof TrainerError) throw error
    watch.training.resume()
  } finally {
    guarding.close()
    giveBack()
  }
  return guarding.fullest
}

/**
 * A busy machine must not make the guard late: ask to run first, where that is allowed.
 *
 * @returns gives back what is not this process's alone
 */
function preferUs(): () => void {
  try {
    setPriority(constants.priority.PRIORITY_HIGH)
  } catch {
    // Only a privileged user may.
  }
  // Sessions may get equal shares of the processor, whatever the priorities in them; see sched(7). A training may make many.
  const before = /nice (-?\d+)/.exec(readProc('self/autogroup') ?? '')?.[1]
  return before !== undefined && reniceSession('-20') ? () => void reniceSession(before) : () => {}
}

/** @returns false where this user may not */
function reniceSession(nice: string): boolean {
  try {
    writeFileSync('/proc/self/autogroup', nice)
    return true
  } catch {
    return false
  }
}

/** The figures of a training that has passed its limit, and what it held. */
type Passed = Figures & { held?: HeldFiles; hiddenBytes?: number; prunable?: Look['prunable'] }

class Guard {
  readonly #watch: Watch
  readonly #signal: AbortSignal
  readonly #choice: Choice
  #hasToldOfInodes = false
  readonly #estimate: Estimate
  readonly #looker: Looker
  /** The kernel lets nothing pass the limit of a filesystem of the job's own. */
  readonly #sentry: Sentry | undefined
  /** When pruning found too little, freezing again at once would only stall it: half of the room must go first. */
  #patience: Amounts = { bytes: 0, inodes: 0 }
  /** The folder was counted before the training began. */
  #walk = { endMs: performance.now(), tookMs: 0 }
  /** The filesystem's account, and how much of it was seen to be freed since the last walk. */
  #disk = { usedBytes: 0, freedBytes: 0 }
  /** Until then it is walked while it runs, because it was stopped for what others had written. */
  #movingUntilMs = 0
  #toldMs = Number.NEGATIVE_INFINITY
  /** The last look between walks, and until when it is looked at in a hurry. */
  #pace = { usedBytes: 0, usedInodes: 0, ms: 0, hurryUntilMs: 0 }
  /** Until then so many files are made that a walk would be late, and no account of what is written meanwhile. */
  #crowdedUntilMs = 0
  fullest: Figures
  #fullestMs = 0

  constructor(watch: Watch, signal: AbortSignal) {
    this.#watch = watch
    this.#signal = signal
    this.#choice = new Choice(watch)
    this.fullest = watch.start
    this.#estimate = new Estimate(watch.dir, watch.start, watch.start.account)
    this.#looker = new Looker(watch, signal)
    if (!watch.isCapped) this.#sentry = new Sentry(watch.dir, watch.training)
  }

  async run(): Promise<void> {
    const { isCapped, countsAtOnce } = this.#watch
    const needsWalks = !isCapped || !countsAtOnce
    while (!this.#signal.aborted) {
      const account = accountOf(this.#watch.dir)
      const now = this.#estimate.now(account)
      this.#looker.note(account)
      this.#disk.freedBytes += Math.max(0, this.#disk.usedBytes - account.usedBytes)
      this.#disk.usedBytes = account.usedBytes
      this.#sentry?.allow(account.usedBytes + limitNow(this.#watch, now).bytes - now.usedBytes)
      const isTight = isAbove(now, this.#thresholds(now))
      // It may be others who have written so much: only a count tells.
      if (!isTight) this.#tell(now)
      this.#remember(now)
      const isHurried = this.#isHurried(now)
      if (this.#sentry?.hasStopped()) await this.#relieve()
      else if (isTight) await this.#stopAndCount()
      else if (needsWalks && this.#isWalkDue(now)) await this.#walkMoving()
      else await this.#wait(this.#roomIn(now), isHurried)
    }
  }

  close(): void {
    this.#sentry?.close()
  }

  #remember(figures: Figures): void {
    const nowMs = performance.now()
    const { freeBytes, freeInodes } = this.fullest
    const isFuller = figures.freeBytes < freeBytes || figures.freeInodes < freeInodes
    if (!isFuller && nowMs - this.#fullestMs < FULLEST_MS) return
    this.fullest = figures
    this.#fullestMs = nowMs
  }

  #tell(figures: Figures): void {
    if (performance.now() - this.#toldMs < TELL_EVERY_MS) return
    this.#toldMs = performance.now()
    this.#watch.onLook(figures)
  }

  /** Above these it is frozen; never above what it may use now, however patient the guard has become. */
  #thresholds(figures: Figures): Amounts {
    const limit = limitNow(this.#watch, figures)
    return {
      bytes: Math.min(Math.max(FREEZE_ABOVE * limit.bytes, this.#patience.bytes), limit.bytes),
      inodes: Math.min(Math.max(FREEZE_ABOVE * limit.inodes, this.#patience.inodes), limit.inodes),
    }
  }

  #roomIn(figures: Figures): Amounts {
    const { bytes, inodes } = this.#thresholds(figures)
    return { bytes: bytes - figures.usedBytes, inodes: inodes - figures.usedInodes }
  }

  /** Has it grown fast just now, or was it just resumed? */
  #isHurried({ usedBytes, usedInodes }: Figures): boolean {
    const last = this.#pace
    const ms = performance.now()
    const isCrowded = usedInodes - last.usedInodes > CROWDED_INODES_PER_MS * (ms - last.ms)
    if (isCrowded && this.#watch.countsAtOnce) this.#crowdedUntilMs = ms + CROWDED_MS
    const growsFast = usedBytes - last.usedBytes > HURRY_BYTES_PER_MS * (ms - last.ms)
    const hurryUntilMs = growsFast ? ms + HURRY_MS : last.hurryUntilMs
    this.#pace = { usedBytes, usedInodes, ms, hurryUntilMs }
    return ms < hurryUntilMs
  }

  /** Wait, but not until the fastest writers could have taken half of the room. */
  async #wait(room: Amounts, isHurried = false): Promise<void> {
    const ms = Math.min(room.bytes / FASTEST.bytes, room.inodes / FASTEST.inodes) / 2
    const leastMs = isHurried ? HURRIED_WAIT_MS : MIN_WAIT_MS
    const bounded = Math.min(Math.max(ms, leastMs), MAX_WAIT_MS)
    await delay(bounded, undefined, { signal: this.#signal }).catch(() => {})
  }

  #isWalkDue(figures: Figures): boolean {
    if (performance.now() < this.#crowdedUntilMs) return false
    const room = this.#roomIn(figures).bytes
    const isFreed = this.#disk.freedBytes > FREED_SHARE * room
    const countingShare = isFreed ? FREEING_WALK_SHARE : WALK_SHARE
    const share = this.#watch.countsAtOnce ? countingShare : LATE_WALK_SHARE
    const { endMs, tookMs } = this.#walk
    const halfRoomMs = room / 2 / FAST_BYTES_PER_MS
    return performance.now() - endMs >= Math.max(tookMs / share, Math.min(halfRoomMs, MAX_WALK_PAUSE_MS))
  }

  /** Walk while the training runs; what it finds is believed unless the filesystem's account says more. */
  async #walkMoving(): Promise<void> {
    const { countsAtOnce } = this.#watch
    const before = process.cpuUsage()
    const look = await this.#lookMoving()
    if (look) this.#choice.noteSizes(look)
    if (look && countsAtOnce) this.#raise(look)
    else if (look) this.#estimate.set(look, look.account)
    this.#walked(before)
  }

  /** Note what a walk took of a processor: on a busy machine it lasts longer than that. */
  #walked(before: NodeJS.CpuUsage): void {
    const { user, system } = process.cpuUsage(before)
    this.#walk = { endMs: performance.now(), tookMs: (user + system) / 1000 }
    this.#disk = { usedBytes: 0, freedBytes: 0 }
  }

  /** Others who free space hide growth from the account: the walk shows it. What it shows less may be hidden from it. */
  #raise(look: Look): void {
    const account = accountOf(this.#watch.dir)
    const found = this.#estimate.after(look, look.account)
    const expected = this.#estimate.now()
    const usedBytes = Math.max(found.usedBytes, expected.usedBytes)
    const usedInodes = Math.max(found.usedInodes, expected.usedInodes)
    this.#estimate.set({ ...expected, usedBytes, usedInodes }, account)
  }

  /** @returns undefined if the folder grew too fast to be walked while it moves */
  async #lookMoving(): Promise<Look | undefined> {
    const before = this.#estimate.now()
    const room = this.#roomIn(before)
    // Above the threshold for others' sake: as much again.
    const most = {
      bytes: room.bytes > 0 ? room.bytes : before.usedBytes / 20,
      inodes: Math.max(room.inodes, 64),
    }
    return this.#countWithin(() => {
      const { usedBytes, usedInodes } = this.#estimate.now()
      return {
        bytes: most.bytes - (usedBytes - before.usedBytes),
        inodes: most.inodes - (usedInodes - before.usedInodes),
      }
    })
  }

  /**
   * Count while it moves, but no longer than there is room for what is written meanwhile.
   *
   * @returns undefined if that was not long enough
   */
  async #countWithin(roomLeft: () => Amounts): Promise<Look | undefined> {
    const stop = new AbortController()
    const signal = AbortSignal.any([this.#signal, stop.signal])
    let isOver = false
    // It may have to wait for a process that the training keeps from running.
    const ended = unlessAborted(this.#looker.countMoving(signal), signal)
      .catch(error => {
        if (error !== stop.signal.reason) throw error
        return undefined
      })
      .finally(() => {
        isOver = true
      })
    while (!isOver && !this.#signal.aborted) {
      const room = roomLeft()
      if (room.bytes < 0 || room.inodes < 0) stop.abort(new Error('it grows too fast'))
      await Promise.race([ended, this.#wait(room, true)])
    }
    return ended
  }

  /** The filesystem has grown by as much as there was room: stop the training and count, unless it was others just now. */
  async #stopAndCount(): Promise<void> {
    if (performance.now() < this.#movingUntilMs) {
      const startedMs = performance.now()
      const look = await this.#lookMoving()
      if (look && !isAbove(look, this.#thresholds(look)) && this.#looker.isTrusted(look)) {
        this.#estimate.set(look, look.account)
        // It must not take all of the time.
        const tookMs = performance.now() - startedMs
        return this.#wait({ bytes: tookMs * 2 * FASTEST.bytes, inodes: Number.POSITIVE_INFINITY })
      }
    }
    await this.#relieve()
  }

  /** Freeze, measure, prune, measure, resume; or kill, if that does not help. */
  async #relieve(): Promise<void> {
    const { job, dir, training, emit } = this.#watch
    const startedMs = performance.now()
    const before = process.cpuUsage()
    await this.#freeze()
    let runs: Runs
    let look: Look
    for (let attempt = 1; ; attempt++) {
      const passed = await this.#untilStopped()
      // It writes on until it is dead: no time for another look.
      if (passed) return this.#endPassed(passed, passed.held)
      runs = training.runs()
      const counted = await this.#countStanding(runs)
      if (counted && !training.hasRunSince(runs)) {
        look = counted
        break
      }
      if (attempt === MOST_WAKES)
        return this.#endUncounted(
          'something wakes it each time that it is stopped (a timer that sends SIGCONT?)',
        )
    }
    const isFull = isAbove(look, this.#thresholds(look))
    const isOthers = !isFull && isAbove(this.#estimate.now(), withNoise(look))
    const { prunedCount } = this.#choice
    if (isFull) look = await this.#prune(look)
    const countedOnly = this.#choice.prunedCount === prunedCount && ({ countedOnly: true } as const)
    this.#choice.noteSizes(look)
    this.#estimate.set(look, look.account)
    if (!training.hasRunSince(runs)) this.#looker.trust(look)
    this.#tellNow(look)
    const limit = limitNow(this.#watch, look)
    if (isAbove(look, limit))
      return this.#endPassed(look, await lookAtHeld(training.processes(), dir, this.#looker.sinceMs))
    this.#patience = {
      bytes: patienceFor(look.usedBytes, limit.bytes),
      inodes: patienceFor(look.usedInodes, limit.inodes),
    }
    const pausedMs = performance.now() - startedMs
    if (isOthers) this.#movingUntilMs = performance.now() + pausedMs / IDLE_STOP_SHARE
    this.#walked(before)
    this.#pace.hurryUntilMs = performance.now() + HURRY_MS
    // To write it down takes time in which the training would go on unwatched.
    emit({ event: 'train.resume', job, usedBytes: look.usedBytes, pausedMs, ...countedOnly })
    training.resume()
  }

  /** @returns undefined if it was woken meanwhile, by whatever; it is being stopped again then */
  async #countStanding(runs: Runs): Promise<Look | undefined> {
    const { training } = this.#watch
    const over = new AbortController()
    const woken = new AbortController()
    const watch = async () => {
      for (let tookMs = 0; ; ) {
        const waitMs = Math.max(WAKE_LOOK_MS, tookMs / WAKE_LOOK_SHARE)
        await delay(waitMs, undefined, { signal: over.signal }).catch(() => {})
        const startedMs = performance.now()
        if (over.signal.aborted) return
        if (training.hasRunSince(runs)) {
          training.stop()
          return woken.abort(new Error('it runs'))
        }
        tookMs = performance.now() - startedMs
      }
    }
    const watching = watch()
    try {
      const signal = AbortSignal.any([this.#signal, woken.signal])
      return await this.#looker.countStanding(this.#estimate.now(), signal)
    } catch (error) {
      if (error !== woken.signal.reason) throw error
      return undefined
    } finally {
      over.abort()
      await watching
    }
  }

  async #freeze(): Promise<void> {
    const { job, training, emit } = this.#watch
    const now = this.#estimate.now()
    const limit = limitNow(this.#watch, now)
    // No list meets processes that come and go fast enough, and to make one takes time in which they write on.
    const isHurried = performance.now() < this.#pace.hurryUntilMs
    if (isHurried || isAbove(now, limit)) await training.stopAtOnce()
    else training.stop()
    // Only a count may say that the limit was passed.
    emit({ event: 'train.freeze', job, usedBytes: Math.min(now.usedBytes, limit.bytes) })
  }

  /** It is above its limit, and nothing is left to prune. */
  async #endPassed(look: Passed, held: HeldFiles | undefined): Promise<never> {
    const { dir, training } = this.#watch
    const holds = describeHeld(held)
    const { hiddenBytes = 0, prunable } = look
    const seen = { ...look, usedBytes: look.usedBytes - hiddenBytes }
    const isInferred = !isAbove(seen, limitNow(this.#watch, look))
    const before = accountOf(dir)
    // All of it has got SIGKILL then. To give back its memory may take it seconds.
    const dying = training.kill()
    if (isInferred) {
      await dying
      if (!(await hasGivenBack(dir, before, hiddenBytes))) throw endedByMistake(this.#watch, hiddenBytes)
    }
    // Nothing is deleted where others have filled the disk.
    const { usage } = this.#reasonFor(look)
    const rest = usage ? await this.#choice.endPassed(usage, prunable, dying) : ''
    await dying
    throw this.#reasonFor(look, holds + rest)
  }

  /** A training that goes on while it is counted can hide from every count. */
  async #endUncounted(why: string): Promise<never> {
    const { job, training } = this.#watch
    await training.kill()
    throw new TrainerError(
      'training-failed',
      `Stopped ${job}: its training cannot be counted, because ${why}`,
    )
  }

  #tellNow(figures: Figures): void {
    this.#toldMs = Number.NEGATIVE_INFINITY
    this.#tell(figures)
  }

  /**
   * Wait until all of it stands still: a thread in a system call goes on until that returns.
   *
   * @returns what it uses, if it passes its limit meanwhile and pruning does not help: only its death ends that
   */
  async #untilStopped(): Promise<Passed | undefined> {
    const { training, countsAtOnce } = this.#watch
    const startedMs = performance.now()
    let since: { ms: number; runs: Runs } | undefined
    let press = { ms: startedMs + PRESS_MS, everyMs: PRESS_MS }
    let renewals = 0
    const unfound = new Unfound(countsAtOnce)
    while (!training.stop()) {
      if (performance.now() - startedMs > FREEZE_DEADLINE_MS && !(await training.isStarved()))
        await this.#endUncounted(
          `it does not stop within ${FREEZE_DEADLINE_MS / 1000} s; look for a disk or a network mount that hangs`,
        )
      if (performance.now() > press.ms) {
        // Nothing that the kernel has stopped makes a process, unless something else of it has woken it.
        if (await training.stopUnseen(true)) renewals++
        if (renewals > MOST_WAKES)
          await this.#endUncounted(
            'it goes on making processes while it is stopped (one that sends SIGCONT?)',
          )
        const everyMs = Math.min(2 * press.everyMs, MOST_PRESS_MS)
        press = { ms: performance.now() + (renewals ? PRESS_MS : everyMs), everyMs }
      }
      since ??= { ms: performance.now(), runs: training.runs() }
      if (performance.now() - since.ms > STUCK_MS) {
        if (training.isStuck() && !training.hasRunSince(since.runs)) return undefined
        since = undefined
      }
      await delay(2)
      const now = this.#estimate.now()
      if (!isAbove(now, limitNow(this.#watch, now))) continue
      // It may be others who have written so much.
      const before = this.#looker.counters()
      const writtenBytes = () => bytesBetween(before, this.#looker.counters(), countsAtOnce)
      const mostBytes = (1 + MOST_UNFOUND) * limitNow(this.#watch, now).bytes
      // It may have deleted what the folder held before: only what is written meanwhile counts for sure.
      let look = await this.#countWithin(() => ({
        bytes: mostBytes - writtenBytes(),
        inodes: Number.POSITIVE_INFINITY,
      }))
      if (!look) {
        const usedBytes = writtenBytes()
        if (usedBytes > mostBytes) return { ...now, usedBytes }
        continue
      }
      const limit = limitNow(this.#watch, look)
      if (isAbove(look, limit)) {
        look = await this.#prune(look)
        if (isAbove(look, limitNow(this.#watch, look))) return look
        unfound.forget()
      } else if (unfound.note(before, look, this.#looker.counters()) > MOST_UNFOUND * limit.bytes)
        return { ...look, usedBytes: now.usedBytes, hiddenBytes: 0 }
    }
    return undefined
  }

  /** Prune down to 80 % of the limit, in rounds: one kind of what may go after another, and much in parts. */
  async #prune(before: Look): Promise<Look> {
    for (let look = before; ; ) {
      const limit = limitNow(this.#watch, look)
      const target = { targetBytes: PRUNE_TO * limit.bytes, targetInodes: PRUNE_TO * limit.inodes }
      // Only what there is too much of is pruned.
      const over = this.#thresholds(look)
      if (look.usedBytes <= over.bytes) target.targetBytes = look.usedBytes
      if (look.usedInodes <= over.inodes) target.targetInodes = look.usedInodes
      else this.#tellOfInodes(look, limit.inodes)
      const last = { bytes: LAST_ABOVE * limit.bytes, inodes: LAST_ABOVE * limit.inodes }
      const sets = await this.#choice.choose(look, isAbove(look, last))
      if (!sets.length) return look
      const freed = await this.#choice.prune(sets, { ...look, ...target, signal: this.#signal })
      look = await this.#looker.countAfter(look, freed.freedBytes, it => isAbove(it, this.#thresholds(it)))
      const isDone = !isAbove(look, this.#thresholds(look))
      if (isDone || !freed.freedInodes) return look
    }
  }

  /** Say once that it is files that there are too many of: in bytes nothing shows it. */
  #tellOfInodes({ usedInodes }: Figures, limitInodes: number): void {
    if (this.#hasToldOfInodes) return
    this.#hasToldOfInodes = true
    const { job, emit } = this.#watch
    const message =
      `its training runs out of inodes, ${usedInodes} of ${Math.max(0, limitInodes)} are used, so its oldest checkpoints go; ` +
      'make it write fewer files'
    emit({ event: 'warning', job, message })
  }

  #reasonFor(look: Figures, rest = ''): TrainerError {
    const how = 'had nothing left to prune and was killed'
    if (look.usedInodes > limitNow(this.#watch, look).inodes) return inodesGone(this.#watch, look, how)
    return look.usedBytes > this.#watch.limitBytes
      ? limitReached(this.#watch, look, how, rest)
      : diskFull(this.#watch, look)
  }
}

/** Has the end of a training freed most of what it was taken to hold, in so far as others let that be seen? */
async function hasGivenBack(dir: string, before: FilesystemAccount, hiddenBytes: number): Promise<boolean> {
  await freeLostSockets()
  return before.usedBytes - accountOf(dir).usedBytes > hiddenBytes / 2
}

/** Half of the room is to go before it is frozen again, and not less than that a few times is all. */
function patienceFor(used: number, limit: number): number {
  return used > FREEZE_ABOVE * limit ? used + Math.max((limit - used) / 2, limit / 256) : 0
}
