import { spawnSync } from 'node:child_process'
import { programOf, root } from './places.ts'
import type { Rig } from './rig.ts'

/**
 * Run tasks.ts on a terminal that is set up so, and give what it shows.
 *
 * @example onTerminal(rig, 'stty cols 100; export TERM=xterm', ['core'])
 */
export function onTerminal(rig: Rig, setUp: string, args: string[]): string {
  const places = ['--quotas', rig.path('quotas.json'), '--models-dir', rig.modelsDir]
  const words = [process.execPath, ...programOf('tasks.ts'), ...args, ...places]
  const command = `${setUp}; ${words.join(' ')}`
  return spawnSync('script', ['-qec', command, '/dev/null'], { cwd: root, encoding: 'utf8' }).stdout
}
