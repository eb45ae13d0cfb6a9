import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { isErrno, TrainerError } from '../errors.ts'
import { SHELL, safePath, shellWith } from '../system/programs.ts'

/**
 * What runs beside the training, in a session and with an environment of its own. Once we are gone without a word, the
 * watchdog kills the training's process group, which takes a whole sandbox along. The kernel's parent-death signal alone
 * would leave what has not asked for it yet, such as a sandbox that is being set up. `cat` passes on what the training
 * prints, to the last byte, for it is not stopped or ended with it. The shell that starts both is waited for.
 */
const helpers = `
{ read -ru 5 || kill -KILL -- "-$0"; } </dev/null 4>&- &
cat <&0 >&4 4>&- 5>&- &`

export type TrainingCommand = {
  /** Made by `containedArgv()`; its program is looked up on our PATH, not on that of `env`. */
  argv: string[]
  cwd: string
  env: Record<string, string>
  /**
   * The run's lock, inherited so that it is held for as long as the training lives: in a sandbox by its first process
   * alone, else by every process.
   */
  lockFd: number
  isSandboxed: boolean
}

export type Launched = {
  pid: number
  exited: Promise<[code: number | null, signal: NodeJS.Signals | null]>
  /** All that the training prints; Node.js drops what nobody listens to by the time of its exit. */
  output: Readable
  /** Ended without a word, it makes the watchdog kill the training. */
  lifeline: Socket
  /** Did its program begin? If not, what it is wrapped in has failed. */
  hasBegun: Promise<boolean>
}

/**
 * Start a command in a process group of its own, with stdin closed, once its helpers are there and no part of it.
 *
 * @throws {TrainerError} `training-failed` if no process could be made; `config` if its command is too long for one
 */
export async function launch({ argv, cwd, env, lockFd }: TrainingCommand): Promise<Launched> {
  // zx keeps all that it reads from stdout in memory: the training's output comes on a descriptor of our own. Node's
  // pipes are sockets, which a training could not open by the name /dev/stdout: between is a real pipe. Nor is stdin one:
  // bash would take itself for a remote shell and run ~/.bashrc.
  const stdio = ['ignore', 'ignore', 'ignore', lockFd, 'pipe', 'pipe', 'pipe'] as const
  const ours = { ...env, PATH: safePath }
  const $ = await shellWith({ cwd, env: ours, detached: true, stdio: [...stdio] })
  const started = $`
    exec 2>&4 > >(exec env --ignore-environment --chdir=/ setsid ${SHELL} -c ${helpers} $$ 2>&- 3>&- 6>&-) &&
    wait $! && exec ${argv} 2>&1 4>&- 5>&-`
  const { child } = started
  if (!child?.pid) {
    const { cause, message } = await started
    const isTooLong = isErrno(cause, 'E2BIG')
    const remedy = isTooLong
      ? '; shorten its command or env: Linux takes 128 KiB, more belongs in a file'
      : ''
    throw new TrainerError(
      isTooLong ? 'config' : 'training-failed',
      `Cannot start the training in ${cwd}: ${message.split('\n')[0]}${remedy}`,
      { cause },
    )
  }
  // Node's types end at descriptor 4.
  const [output, lifeline, begun] = child.stdio.slice(4) as unknown as [Readable, Socket, Readable]
  lifeline.on('error', () => {}) // of a watchdog that somebody has killed
  const exited = once(child, 'exit') as Launched['exited']
  const hasBegun = new Promise<boolean>(resolve => {
    begun.once('data', () => resolve(true)).once('close', () => resolve(false))
  }).finally(() => begun.destroy())
  return { pid: child.pid, exited, output, lifeline, hasBegun }
}
