const stepsS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800]

/** At most `most` round times in seconds, from 0 up to `endS`. */
export function ticksUpTo(endS: number, most: number): number[] {
  const stepS = stepsS.find(step => endS / step < most) ?? 86_400 * Math.ceil(endS / 86_400 / most)
  return Array.from({ length: Math.floor(endS / stepS) + 1 }, (_, index) => index * stepS)
}

/** A round time: `0`, `30 s`, `5 min`, `2 h`. */
export function formatTick(seconds: number): string {
  if (seconds === 0) return '0'
  if (seconds < 60) return `${seconds} s`
  const [amount, unit] = seconds < 3600 ? [seconds / 60, 'min'] : [seconds / 3600, 'h']
  return `${Number(amount.toFixed(1))} ${unit}`
}
