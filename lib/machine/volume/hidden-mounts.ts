import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { ProgramFailure, type RunProgram, safePath } from '../../system/programs.ts'

/**
 * The machine's folders with mounts of our own, which nobody else sees. A mount that hides files can be taken away
 * here, and a filesystem be inspected before everybody finds it in its place. The kernel drops these mounts with the
 * one process that lives among them, and that process ends with us, whatever ends us.
 *
 * @example await using hidden = await HiddenMounts.open(run) await hidden.run(['umount', '/srv/data'])
 * readdirSync(hidden.path('/srv/data')) // lists the files beneath the mount
 */
export class HiddenMounts implements AsyncDisposable {
  /** Runs a program among these mounts. */
  readonly run: RunProgram
  readonly #holder: ChildProcess
  readonly #ended: Promise<unknown>

  private constructor(holder: ChildProcess, ended: Promise<unknown>, run: RunProgram) {
    this.#holder = holder
    this.#ended = ended
    this.run = argv => run(['nsenter', '--target', String(holder.pid), '--mount', '--', ...argv])
  }

  /** @throws {ProgramFailure} if this user may not make mounts */
  static async open(run: RunProgram): Promise<HiddenMounts> {
    // Do without zx, which waits for programs: this one waits for us, and our end is the end of its input.
    const holder = spawn('unshare', ['--mount', '--propagation', 'slave', '--', 'cat'], {
      env: { PATH: safePath },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    let said = ''
    holder.stderr.on('data', chunk => (said += chunk))
    holder.stdin.on('error', () => {}) // its exit tells
    const ended = once(holder, 'exit')
    holder.stdin.write('ready\n')
    await Promise.race([once(holder.stdout, 'data'), ended])
    if (holder.exitCode !== null) throw new ProgramFailure(said.trim() || 'unshare failed')
    return new HiddenMounts(holder, ended, run)
  }

  /** Return the path that leads to `path` as it is among these mounts. */
  path(path: string): string {
    return `/proc/${this.#holder.pid}/root${path}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#holder.stdin?.end()
    await this.#ended
  }
}
