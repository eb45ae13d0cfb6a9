import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { isErrno } from '../errors.ts'
import { isExiting, stateOf } from '../system/processes.ts'
import { safePath } from '../system/programs.ts'

/** To enter a sandbox takes some ten milliseconds; on a busy machine more. */
const ENTERING_MS = 5000
const ENTERING_LOOK_MS = 50
/** Numbers that are given once only; see RESERVED_PIDS in the kernel's pid.c. */
const RESERVED_PIDS = 300
/** For a shell; there may be nothing to be stopped. */
const STOP_ALL = 'kill -STOP -1; exit 0'
/** A training that stands still waits for it. */
const NUMBERING_MS = 200

/** The outer one of bwrap's processes, and the first one in the sandbox that it has made. */
export type Sandbox = { outer: number; first: number }

/**
 * SIGSTOP everything in a sandbox but its first process: the kernel goes through all of it before anything in it can make
 * another process. Where it cannot be entered, or comes to its end meanwhile, nothing is done.
 *
 * @returns false if something keeps the program that enters it from doing so: a training of an ordinary user may stop and
 * kill it, and use up the processes that its user may have
 */
export async function stopSandbox(sandbox: Sandbox): Promise<boolean> {
  const { status, errors } = await enterSandbox(sandbox, STOP_ALL, ENTERING_MS)
  return status === 0 || /cannot open|reassociate/.test(errors) || isExiting(sandbox.first)
}

/**
 * Make a process in a sandbox, which ends at once. The kernel numbers them one after another, and begins anew after the last number.
 *
 * @returns its number there, and how many numbers there are; undefined where that takes long
 */
export async function nextPidIn(sandbox: Sandbox): Promise<{ pid: number; numbers: number } | undefined> {
  const script = 'echo $$; exec cat /proc/sys/kernel/pid_max'
  const { status, output } = await enterSandbox(sandbox, script, NUMBERING_MS)
  const [pid, most] = output.split('\n').map(Number)
  return status === 0 && pid && most ? { pid, numbers: most - RESERVED_PIDS } : undefined
}

/** The command that does the same as {@link stopSandbox}, for whoever cannot wait for it. */
export function stopCommand(sandbox: Sandbox): string[] {
  return ['nsenter', ...enteringArgs(sandbox), 'sh', '-c', STOP_ALL]
}

/** What has become of a program that was to run in a sandbox; without a status it was held up. */
type Entered = { status: number | undefined; output: string; errors: string }

/** Run a shell's `script` in the process namespace of a sandbox, for so long at most. */
async function enterSandbox(sandbox: Sandbox, script: string, mostMs: number): Promise<Entered> {
  const entered = spawn('nsenter', [...enteringArgs(sandbox), 'sh', '-c', script], {
    env: { PATH: safePath, LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  let errors = ''
  entered.stdout.setEncoding('utf8').on('data', text => (output += text))
  entered.stderr.setEncoding('utf8').on('data', text => (errors += text))
  const ended = once(entered, 'close').catch(error => [isErrno(error, 'ENOENT') ? 0 : 1])
  const endMs = performance.now() + mostMs
  // It stops with what it has sent in.
  const isHeldUp = () => stateOf(`${entered.pid}`) === 'T' || performance.now() > endMs
  let status: number | undefined
  do [status] = await Promise.race([ended, delay(ENTERING_LOOK_MS, [undefined], { ref: false })])
  while (status === undefined && !isHeldUp())
  entered.kill('SIGKILL')
  // What is in there may be stopped with the other ends.
  entered.stdout.destroy()
  entered.stderr.destroy()
  return { status, output, errors }
}

function enteringArgs({ outer, first }: Sandbox): string[] {
  // Root may enter it as it is. Another user may in the user namespace that it was made from.
  const user = process.getuid?.() === 0 ? [] : [`--user=/proc/${outer}/ns/user`, '--preserve-credentials']
  return [...user, `--pid=/proc/${first}/ns/pid`]
}
