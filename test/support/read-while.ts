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
  const reader = spawn(process.execPath, [...programOf('test/support/model-reader.ts'), jobDir], {
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
  return JSON.parse((await said).trim().split('\n')[1]!)
}
