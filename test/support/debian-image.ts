import { createHash } from 'node:crypto'
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sandbox } from './sandbox.ts'
import { must } from './volume-rig.ts'

/** What ours depends on and recommends, but for Node.js. */
const NEEDED = ['bubblewrap', 'util-linux', 'procps']
const WITH_SYSTEMD = ['systemd-sysv', 'dbus', ...NEEDED]

/** Debian by the number of its release, with its init and what brings Node.js: its own is too old in 12. */
const releases = {
  13: { suite: 'trixie', packages: [...WITH_SYSTEMD, 'nodejs'] },
  '13 without systemd': { suite: 'trixie', packages: [...NEEDED, 'systemd-standalone-sysusers', 'nodejs'] },
  12: { suite: 'bookworm', packages: [...WITH_SYSTEMD, 'libstdc++6'] },
}

/** The version that Debian 12 gets, as from a repository that an administrator has added. */
const NODE = '22'

/**
 * Give the root folder of Debian as debootstrap installs it: made once for each list of packages, and kept in the
 * temporary folder. Nothing may be changed in there.
 */
export async function debianImage(release: keyof typeof releases, ...others: string[]): Promise<string> {
  const { suite, packages } = releases[release]
  const list = [...packages, ...others].join()
  const hash = createHash('sha256').update(`${suite} ${list} ${NODE}`).digest('hex').slice(0, 12)
  const image = join(tmpdir(), `ransomeye-debian-${suite}-${hash}`)
  if (isThere(image)) return image
  const half = mkdtempSync(`${image}.`)
  try {
    must('debootstrap', '--variant=minbase', `--include=${list}`, suite, half)
    if (release === 12) await addNode(half)
    chmodSync(half, 0o755)
    // A first boot asks on the console for a name and a password where there is none.
    writeFileSync(join(half, 'etc/machine-id'), '0123456789abcdef0123456789abcdef\n')
    writeFileSync(join(half, 'etc/hostname'), 'appliance\n')
    renameSync(half, image)
  } finally {
    rmSync(half, { recursive: true, force: true })
  }
  return image
}

/** @throws {Error} if somebody else has put something there, which root must not run */
function isThere(image: string): boolean {
  const stats = lstatSync(image, { throwIfNoEntry: false })
  if (stats && (stats.uid !== 0 || !stats.isDirectory())) throw new Error(`${image} is not root's folder`)
  return stats !== undefined
}

/** Install a package nodejs as those have it who build it themselves, from the npm package with its binary. */
async function addNode(image: string): Promise<void> {
  await using box = await sandbox()
  must('npm', 'pack', '--silent', '--pack-destination', box.dir, `node-linux-${process.arch}@${NODE}`)
  mkdirSync(box.path('nodejs/DEBIAN'), { recursive: true })
  mkdirSync(box.path('nodejs/usr/bin'), { recursive: true })
  must('sh', '-c', `tar -xzf "$0"/*.tgz -C "$0" package/bin/node`, box.dir)
  renameSync(box.path('package/bin/node'), box.path('nodejs/usr/bin/node'))
  const architecture = must('dpkg', '--print-architecture').trim()
  const control = `Package: nodejs\nVersion: ${NODE}.0.0-1\nArchitecture: ${architecture}\nMaintainer: nobody <nobody@example.invalid>\nDescription: Node.js\n`
  writeFileSync(box.path('nodejs/DEBIAN/control'), control)
  const deb = join(image, 'root/nodejs.deb')
  must('dpkg-deb', '--build', '--root-owner-group', box.path('nodejs'), deb)
  must('chroot', image, 'dpkg', '--install', '/root/nodejs.deb')
  rmSync(deb)
}
