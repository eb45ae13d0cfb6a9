import { dirname } from 'node:path'
import type { Options, Shell } from 'zx/core'

/** The failure of a program; the message is what it printed on its standard error. */
export class ProgramFailure extends Error {
  override readonly name = 'ProgramFailure'
}

/** Runs one program to its end and returns its standard output. */
export type RunProgram = (argv: string[]) => Promise<string>

/**
 * Make a function that runs programs. They hold the lock `lockFd` for as long as they live, and are killed when we are:
 * after `kill -9` of us nobody else starts beside a program that is still ending.
 *
 * @example const run = programRunner(lock.fd); await run(['mount', '--bind', from, to])
 */
export function programRunner(lockFd?: number): RunProgram {
  const inherited = lockFd === undefined ? [] : [lockFd]
  return async argv => {
    const $ = await shellWith({
      env: { PATH: safePath, LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe', ...inherited],
    })
    const { exitCode, stdout, stderr } = await $`exec setpriv --pdeathsig KILL -- ${argv}`
    if (exitCode === 0) return stdout
    if (/: failed to execute .*: No such file/.test(stderr))
      throw new ProgramFailure(describeMissing(argv[0]!))
    const said = stderr.trim().replaceAll(/\s*\n\s*/g, '; ') || `ended with ${exitCode}`
    throw new ProgramFailure(said.includes(argv[0]!) ? said : `${argv[0]}: ${said}`)
  }
}

/** The package of a program that not every machine has. */
const packages = new Map([
  ['mkfs.ext4', 'e2fsprogs'],
  ['chattr', 'e2fsprogs'],
  ['xfs_io', 'xfsprogs'],
])

function describeMissing(program: string): string {
  const name = packages.get(program)
  return `${program} is not installed${name ? `; install the Debian package ${name}` : ''}`
}

/** The shell that runs our commands. */
export const SHELL = '/bin/bash'

/**
 * zx's `$` with these options: it prints nothing, and a program that fails is a result, not an exception. `ZX_*`
 * variables change nothing, and no PATH is needed, on which zx would look for its shell.
 *
 * @example const $ = await shellWith({ env: { PATH: safePath } }); await $`exec ${argv}`
 */
export async function shellWith(options: Partial<Options>): Promise<Shell> {
  const { $, quote } = await import('zx/core')
  return $({ ...options, nothrow: true, quiet: true, shell: SHELL, prefix: '', postfix: '', quote })
}

/** The PATH on which programs are found: our own Node.js first, then the system's folders, never the caller's PATH. */
export const safePath = [
  dirname(process.execPath),
  ...['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'],
].join(':')
