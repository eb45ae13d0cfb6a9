/** How far a training says that it is: its share of 1, and the seconds that are left by its pace so far. */
export type Told = { share: number; secondsLeft?: number }

/** The message of one line: how far something is, and what that is. */
type Reading = { track: string; rank: Rank; share: number }

/** The order of belief: a line made for us, then epochs, then whatever else. */
const RANK = { ours: 3, epochs: 2, other: 1 } as const
type Rank = (typeof RANK)[keyof typeof RANK]

/** Longer lines are no bars. */
const MAX_CHARACTERS = 600
/** Trainings have a few bars at once: more are forgotten. */
const MAX_TRACKS = 16
/** Other lines go by for so long before one that is no longer told goes; longer where it was told more rarely. */
const FORGET_MS = 60_000
const FORGET_GAPS = 3
/** The pace of less time says nothing. */
const MIN_PACE_MS = 2000

// No two neighbours in these can share out the same characters in several ways: a hostile line would be tried in all of them.
/** A logger may put its own words before it. */
const ours = /(?:^|[\s:|\]])RANSOMEYE_PROGRESS[\s:=]+((?:\d+(?:\.\d+)?|\.\d+)(?:e-?\d+)?)\s*(?:(%)\s*)?$/
const fraction = String.raw`(\d{1,9})\s*(?:\/|of)\s*(\d{1,9})(?![\d.])`
/** tqdm, and all that looks like it: ` 42%|████▏     | 42/100 [00:01<00:02]`. */
const percentBar = /(\d{1,3}(?:\.\d+)?)%(?:\|| [|▕][#=█▉▊▋▌▍▎▏])/
const afterBar = new RegExp(`[|▏] *${fraction}`)
const epoch = new RegExp(String.raw`\bepochs?\b[\s:=#[(]*${fraction}`, 'i')
/** As Ultralytics begins its lines. */
const leading = new RegExp(String.raw`^\s*${fraction}\s`)
const step = new RegExp(
  String.raw`\b(?:steps?|iter(?:ation)?s?|batch(?:es)?|updates?)\b[\s:=#[(]*${fraction}`,
  'i',
)
/** Keras, and rich's bars: `120/469 ━━━━━━━━━━ 1s 3ms/step`, `120/469 [====>.....] - ETA: 1s`. */
const counted = String.raw`(?:^|\s)${fraction}`
const firstCounted = new RegExp(counted)
const stepBar = new RegExp(String.raw`${counted} *(?:\[[=>.]|━)`)
const pace = /\b(?:ETA|ms\/step|s\/step|us\/step|it\/s)\b/
const barStep = new RegExp(`[━╸╺] *${fraction}`)
const bar = /[━╸╺█]{3}/

/** Is this a line that was made for us alone? */
export function isProgressLine(line: string): boolean {
  return line.length <= MAX_CHARACTERS && ours.test(line)
}

/** Find the steps of a line that has a bar or a pace after them. */
function findStepBar(text: string): RegExpExecArray | null {
  const first = firstCounted.exec(text)
  // With its last digit, beside which a word does not begin.
  const isPaced = first && pace.test(text.slice(first.index + first[0].length - 1))
  return isPaced ? first : stepBar.exec(text)
}

/** Follows what the lines of a training say of its progress. */
export class ToldProgress {
  readonly #tracks = new Map<string, Track>()
  /** The epoch that a line of its own has begun: `Epoch 3/40`. */
  #epoch: { passed: number; all: number } | undefined
  /** When a line last said something else. */
  #otherMs = Number.NEGATIVE_INFINITY

  /** Take a line that came at `nowMs`, by the monotonic clock. */
  take(line: string, nowMs: number): void {
    const reading = this.#read(line)
    if (!reading) {
      this.#otherMs = nowMs
      for (const [name, { share }] of this.#tracks) if (share >= 1) this.#tracks.delete(name)
      return
    }
    const track = this.#tracks.get(reading.track)
    if (track && reading.share >= track.share) track.advance(reading.share, nowMs)
    else {
      this.#tracks.delete(reading.track)
      this.#tracks.set(reading.track, new Track(reading, nowMs))
    }
    if (this.#tracks.size > MAX_TRACKS) this.#tracks.delete(this.#tracks.keys().next().value!)
  }

  /** How far it says it is at `nowMs`; undefined if it does not say, or no more. */
  at(nowMs: number): Told | undefined {
    for (const [name, track] of this.#tracks)
      if (track.isOver(this.#otherMs, nowMs)) this.#tracks.delete(name)
    const tracks = [...this.#tracks.values()]
    // The outermost bar is the one that was there first.
    const running = tracks.filter(({ share }) => share < 1)
    const first = (running.length ? running : tracks).sort(
      (a, b) => b.rank - a.rank || a.startMs - b.startMs,
    )[0]
    return first?.at(nowMs)
  }

  #read(line: string): Reading | undefined {
    if (line.length > MAX_CHARACTERS || !/[%/]| of |RANSOMEYE_PROGRESS/.test(line)) return undefined
    const [, amount, percent] = ours.exec(line) ?? []
    if (amount !== undefined) {
      const share = Number(amount) / (percent ? 100 : 1)
      return share <= 1 ? { track: 'ours', rank: RANK.ours, share } : undefined
    }
    return this.#readBar(line) ?? this.#readWords(line)
  }

  /** A bar with a percentage, maybe of an epoch. */
  #readBar(line: string): Reading | undefined {
    const found = percentBar.exec(line)
    if (!found) return undefined
    const before = line.slice(0, found.index)
    const counted = shareOf(afterBar.exec(line.slice(found.index)))
    const share = counted?.share ?? Number(found[1]) / 100
    if (share > 1) return undefined
    const around = shareOf(epoch.exec(before) ?? leading.exec(before))
    if (around) return epochs(around.done - 1 + share, around.all)
    const label = before.replaceAll(/\d+/g, '').trim()
    return { track: `${label} ${counted?.all ?? ''}`, rank: RANK.other, share }
  }

  /** Epochs and steps, in words or as Keras shows them. */
  #readWords(line: string): Reading | undefined {
    const found = epoch.exec(line)
    const around = shareOf(found)
    const rest = found ? line.slice(found.index + found[0].length) : line
    const within = shareOf(step.exec(rest) ?? findStepBar(rest) ?? barStep.exec(rest))
    if (around && found) {
      if (within) return epochs(around.done - 1 + within.share, around.all)
      // A line with nothing else begins an epoch. One that says how it was ends it, and so does one without a bar.
      const isHeading = !/\w/.test(rest)
      this.#epoch = isHeading ? { passed: around.done - 1, all: around.all } : undefined
      return epochs(isHeading || bar.test(rest) ? around.done - 1 : around.done, around.all)
    }
    if (!within) return undefined
    if (this.#epoch) return epochs(this.#epoch.passed + within.share, this.#epoch.all)
    return { track: `steps of ${within.all}`, rank: RANK.other, share: within.share }
  }
}

function epochs(passed: number, all: number): Reading {
  return { track: `epochs of ${all}`, rank: RANK.epochs, share: Math.max(0, passed) / all }
}

function shareOf(found: RegExpExecArray | null): { done: number; all: number; share: number } | undefined {
  const [done, all] = [Number(found?.[1]), Number(found?.[2])]
  return all > 0 && done <= all ? { done, all, share: done / all } : undefined
}

/** One thing whose progress is told. */
class Track {
  readonly rank: Rank
  readonly startMs: number
  share: number
  readonly #from: number
  #lastMs: number
  #longestGapMs = 0

  constructor({ rank, share }: Reading, nowMs: number) {
    this.rank = rank
    this.share = share
    this.#from = share
    this.startMs = nowMs
    this.#lastMs = nowMs
  }

  advance(share: number, nowMs: number): void {
    this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#lastMs)
    this.#lastMs = nowMs
    this.share = share
  }

  /** Do other lines tell of something else by now? A training that says nothing at all may be as far as it said. */
  isOver(otherMs: number, nowMs: number): boolean {
    const forgetMs = Math.max(FORGET_MS, FORGET_GAPS * this.#longestGapMs)
    return otherMs > this.#lastMs && nowMs - this.#lastMs > forgetMs
  }

  at(nowMs: number): Told {
    const { share } = this
    const gained = share - this.#from
    const tookMs = this.#lastMs - this.startMs
    if (gained <= 0 || tookMs < MIN_PACE_MS) return { share }
    const leftMs = ((1 - share) / gained) * tookMs - (nowMs - this.#lastMs)
    return { share, secondsLeft: Math.max(0, leftMs / 1000) }
  }
}
