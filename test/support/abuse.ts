import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { QuotaSettings } from '../../lib/quotas.ts'
import { type Ended, type Rig, type Started, trainerRig } from './rig.ts'

/** A user that has nothing on this machine. */
const ORDINARY_USER = 12_345

/** Whom hostile trainings are run as here: both where we may choose. */
export const identities: { name: string; uid: number }[] =
  process.getuid?.() === 0
    ? [
        { name: 'root', uid: 0 },
        { name: 'an ordinary user', uid: ORDINARY_USER },
      ]
    : [{ name: 'an ordinary user', uid: process.getuid?.() ?? 0 }]

/** A command that runs another as that user, with nothing but its rights. */
export function asUser(uid: number): string[] {
  if (uid === process.getuid?.()) return []
  return ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', 'env', `HOME=/nonexistent`]
}

/**
 * The means of hostile trainings, in Python because Node.js makes no system calls of one's own choosing: `attempt`
 * prints what became of something, `call` is a system call by its numbers on x86-64 and arm64.
 */
export const PRELUDE = `
import ctypes, errno, mmap, os, platform, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
out = os.environ['RANSOMEYE_OUTPUT_DIR']
models = os.path.dirname(os.path.dirname(out))
column = 0 if platform.machine() == 'x86_64' else 1
def call(numbers, *args):
    result = libc.syscall(ctypes.c_long(numbers[column]), *[ctypes.c_long(it) if isinstance(it, int) else it for it in args])
    if result < 0: raise OSError(ctypes.get_errno(), '')
    return result
def attempt(name, act):
    try: print(name, 'works' if act() is not False else 'does nothing', flush=True)
    except OSError as error: print(name, errno.errorcode.get(error.errno, error.errno), flush=True)
def write(path):
    with open(path, 'r+b', buffering=0) as file: file.write(b'0')
def publish():
    with open(out + '/core.bin', 'w') as file: file.write('x')
`

export type AbuseRig = Rig & {
  /** Run the attack as a training; its lines are what it printed. */
  attack: (python: string, args?: string[]) => Promise<Ended & { lines: string[] }>
  /** The same, while it goes on. */
  begin: (python: string, args?: string[]) => Started
}

/**
 * A rig whose core job is whatever Python is given, run as that user.
 *
 * @example await using rig = await abuseRig(12345); const { lines } = await rig.attack('print(1)')
 */
export async function abuseRig(uid: number, quota: Partial<QuotaSettings> = {}): Promise<AbuseRig> {
  const rig = await trainerRig({
    core: { train: ['/usr/bin/python3', 'core.py'], models: ['*.bin'], ...quota },
  })
  chmodSync(rig.dir, 0o755)
  mkdirSync(rig.modelsDir, { mode: 0o750 })
  if (process.getuid?.() === 0) chownSync(rig.modelsDir, uid, uid)
  const begin: AbuseRig['begin'] = (python, args = []) => {
    writeFileSync(rig.path('core.py'), PRELUDE + python)
    return rig.start(['core', '--json', ...args], { prefix: asUser(uid) })
  }
  return {
    ...rig,
    begin,
    attack: async (python, args) => {
      const ended = await begin(python, args).ended
      const log = readFileSync(rig.path('models', '.trainer', 'core.log'), 'utf8')
      return { ...ended, lines: log.trim().split('\n') }
    },
  }
}
