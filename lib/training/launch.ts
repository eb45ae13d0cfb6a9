import type { StdioOptions } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { isErrno, TrainerError } from '../errors.ts'
import { WATCHDOG_MARK } from '../run/lock-holders.ts'
import { SHELL, safePath, shellWith } from '../system/programs.ts'

/**
 * The helpers beside the training, in a session and with an environment of their own. Once we are gone without a word, the
 * watchdog kills the training's process group, which takes a whole sandbox along. The kernel's parent-death signal alone
 * would leave what has not asked for it yet, such as a sandbox that is being set up. `cat` passes on what the training
 * prints, to the last byte, for it is not stopped or ended with it. The shell that starts both is waited for.
 *
 * The watchdog also holds the run's lock, on descriptor 3, until nothing of the group is left: a sandbox's first process
 * is dead only when all others in it are. So the lock lives as long as the training, while no process that the training
 * can see has a descriptor of it: held by the sandbox's first process, it could be opened as /proc/1/fd/3, written, and
 * given away.
 */
const helpers = `
is_left() {
  local stat
  for stat in /proc/[0-9]*/stat; do
    # After the name, which is in parentheses: state, parent, group. A dead one is left only to be waited for.
    { read -r stat <"$stat"; } 2>&- && set -- \${stat##*) } && [[ $3 = "$0" && $1 != [ZX] ]] && return
  done
  false
}
{
  read -ru 5 || {
    kill -KILL -- "-$0"
    while kill -0 -- "-$0" && is_left; do sleep 0.01; done
  } 2>&-
} </dev/null 4>&- &
cat <&0 >&4 3>&- 4>&- 5>&- &`

export type TrainingCommand = {
  /** Made by `contain()`; its program is looked up on our PATH, not on that of `env`. */
  argv: string[]
  cwd: string
  env: Record<string, string>
  /** Read by `argv` before its program begins, on descriptors from 7 on. */
  inputs: Buffer[]
  /**
   * The run's lock, held for as long as the training lives: by the watchdog, and without a sandbox, which nothing can
   * leave, also by every process that inherits it.
   */
  lockFd: number
  isSandboxed: boolean
}

export type Launched = {
  pid: number
  exited: Promise<[code: number | null, signal: NodeJS.Signals | null]>
  /** The training's output. Attach a listener before the process exits: Node.js discards unread output. */
  output: Readable
  /** Ended without a word, it makes the watchdog kill the training; closed from the other side, that is gone. */
  lifeline: Socket
  /** Is its program about to begin? If not, what it is wrapped in has failed. */
  isReady: Promise<boolean>
  /** Let its program begin. */
  go: () => void
  /** Wait for its end no longer: this process may end before it. */
  abandon: () => void
}

/**
 * Start a command in a process group of its own, with stdin closed, once its helpers are there and no part of it.
 *
 * @throws {TrainerError} `training-failed` if no process could be made; `config` if its command is too long for one
 */
export async function launch({
  argv,
  inputs,
  cwd,
  env,
  lockFd,
  isSandboxed,
}: TrainingCommand): Promise<Launched> {
  // zx keeps all that it reads from stdout in memory: the training's output comes on a descriptor of our own. Node's
  // pipes are sockets, which a training could not open by the name /dev/stdout: between is a real pipe. Nor is stdin one:
  // bash would take itself for a remote shell and run ~/.bashrc.
  const pipes = ['pipe', 'pipe', 'pipe', ...inputs.map(() => 'pipe')] as 'pipe'[]
  const stdio: StdioOptions = ['ignore', 'ignore', 'ignore', lockFd, ...pipes]
  const lastFd = stdio.length - 1
  const ours = { ...env, PATH: safePath }
  const $ = await shellWith({ cwd, env: ours, detached: true, stdio })
  // A training must not write to what whoever started this run has left open.
  const started = $`
    for fd in /proc/$$/fd/*; do fd=\${fd##*/}; ((fd > ${lastFd})) && exec {fd}>&-; done
    exec 2>&4 > >(exec env --ignore-environment --chdir=/ ${WATCHDOG_MARK}1 setsid ${SHELL} -c ${helpers} $$ 2>&- 6>&- 7>&- 8>&-) &&
    wait $! && exec ${argv} 2>&1 3>&${isSandboxed ? '-' : '3'} 4>&- 5>&-`
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
  const [output, lifeline, gate, ...written] = child.stdio.slice(4) as unknown as [
    ...[Readable, Socket, Socket],
    ...Writable[],
  ]
  for (const [index, input] of written.entries()) {
    input.on('error', () => {}) // of a sandbox that has ended before it has read it
    input.end(inputs[index])
  }
  lifeline.resume()
  lifeline.on('error', () => {}) // of a watchdog that somebody has killed
  const exited = once(child, 'exit') as Launched['exited']
  gate.on('error', () => {}) // of a training that has ended by now
  const isReady = new Promise<boolean>(resolve => {
    gate.once('data', () => resolve(true)).once('close', () => resolve(false))
  })
  const go = () => void gate.end('\n', () => gate.destroy())
  return { pid: child.pid, exited, output, lifeline, isReady, go, abandon: () => child.unref() }
}
