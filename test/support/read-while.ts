import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { programOf } from './places.ts'

/**
 * Let a consumer read core's model in a process of its own until `action` is over.
 *
 * @returns what it has seen
 */
export async function readWhile(
  jobDir: string,
  action: () => Promise<void>,
): Promise<{ whole: number; torn: number; versions: number }> {
  return JSON.parse(await sayWhile(['test/support/model-reader.ts', jobDir], action))
}

/**
 * Let a consumer open the files of core's set in a process of its own until `action` is over.
 *
 * @returns what it has seen
 */
export async function readSetWhile(
  jobDir: string,
  files: string[],
  action: () => Promise<void>,
): Promise<{ whole: number; mixed: number; gone: number; versions: number }> {
  return JSON.parse(await sayWhile(['test/support/set-reader.ts', jobDir, ...files], action))
}

async function sayWhile(
  [script, ...args]: [string, ...string[]],
  action: () => Promise<void>,
): Promise<string> {
  const reader = spawn(process.execPath, [...programOf(script), ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await once(reader.stdout, 'readable')
  const said = text(reader.stdout)
  try {
    await action()
  } finally {
    reader.stdin.end()
    await said
  }
  return (await said).trim().split('\n')[1]!
}
