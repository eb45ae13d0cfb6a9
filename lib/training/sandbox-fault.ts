import { existsSync, readFileSync } from 'node:fs'

/** The files of a machine, which tell why namespaces are forbidden on it. */
export type Machine = {
  /** Does the file exist? */
  has: (path: string) => boolean
  /** The content of a file without its last line break; undefined if it cannot be read. */
  read: (path: string) => string | undefined
}

const thisMachine: Machine = {
  has: existsSync,
  read: path => {
    try {
      return readFileSync(path, 'utf8').trim()
    } catch {
      return undefined
    }
  },
}

/** Other reasons why whoever starts us cannot make namespaces, strongest first, and how each is lifted. */
const obstacles: { isThere: (machine: Machine, said: string) => boolean; remedy: string }[] = [
  {
    isThere: ({ has, read }) =>
      has('/.dockerenv') ||
      has('/run/.containerenv') ||
      /(^|\0)container=/.test(read('/proc/1/environ') ?? ''),
    remedy:
      'this is a container: let it make namespaces (docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined)',
  },
  {
    isThere: ({ read }) => read('/proc/sys/user/max_user_namespaces') === '0',
    remedy: 'no user namespaces are allowed: sysctl user.max_user_namespaces=10000',
  },
  {
    isThere: ({ read }) => read('/proc/sys/kernel/unprivileged_userns_clone') === '0',
    remedy: 'only root may make user namespaces: sysctl kernel.unprivileged_userns_clone=1',
  },
  {
    isThere: ({ read }, said) =>
      read('/proc/sys/kernel/apparmor_restrict_unprivileged_userns') === '1' || /uid map/.test(said),
    remedy:
      'AppArmor forbids it, as on Ubuntu since 24.04: give /usr/bin/bwrap a profile with "userns" (guarantees.md in the docs has it)',
  },
]

/**
 * Say why no sandbox can be made here.
 *
 * @param said bwrap's own words
 * @returns them, and what would help
 */
export function explainFault(said: string, machine: Machine = thisMachine): string {
  const remedy = obstacles.find(({ isThere }) => isThere(machine, said))?.remedy
  return `${said.replaceAll(/\s*\n\s*/g, '; ')}; ${remedy ?? 'let this user make namespaces'}`
}
