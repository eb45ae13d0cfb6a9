import { type SpawnOptions, spawn } from 'node:child_process'

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/**
 * Measure several subjects in turns, so that whatever slows the machine slows all of them.
 *
 * @returns every subject's figures, one a round
 */
export async function inTurns<Name extends string>(
  rounds: number,
  signal: AbortSignal,
  subjects: Record<Name, () => Promise<number>>,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(subjects) as Name[]
  const figures = Object.fromEntries(names.map(name => [name, [] as number[]])) as Record<Name, number[]>
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      signal.throwIfAborted()
      figures[name].push(await subjects[name]())
    }
  }
  return figures
}

/** How long `action` takes. */
export async function elapsedMs(action: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now()
  await action()
  return performance.now() - startedMs
}

/**
 * Run a program and wait for its end.
 *
 * @throws {Error} its exit code is not 0, or it was interrupted
 */
export function runProgram(
  [program, ...args]: string[],
  signal: AbortSignal,
  options: SpawnOptions = {},
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program!, args, { stdio: ['ignore', 'ignore', 'pipe'], ...options, signal })
    let complaint = ''
    child.stderr?.on('data', chunk => (complaint = `${complaint}${chunk}`.slice(-300)))
    child.on('error', reason => (complaint = reason.message)) // an interrupt too, and then it has still to end
    child.once('close', code => {
      if (code === 0) resolve()
      else reject(new Error(`${program} ended with ${code}: ${complaint}`))
    })
  })
}
