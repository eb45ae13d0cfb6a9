import * as assert from 'uvu/assert'
import { explainFault } from '../../lib/training/sandbox-fault.ts'
import { test } from '../support/test.ts'

const apparmor = '/proc/sys/kernel/apparmor_restrict_unprivileged_userns'
const machines: [what: string, files: Record<string, string>, said: string, remedy: RegExp][] = [
  ['Ubuntu 24.04', { [apparmor]: '1' }, 'bwrap: setting up uid map: Permission denied', /AppArmor.*profile/],
  [
    'a machine whose AppArmor lets everybody',
    { [apparmor]: '0' },
    'bwrap: Creating new namespace failed: Operation not permitted',
    /let this user make namespaces/,
  ],
  [
    'an old Debian',
    { '/proc/sys/kernel/unprivileged_userns_clone': '0' },
    'bwrap: No permissions to create new namespace',
    /sysctl kernel.unprivileged_userns_clone=1/,
  ],
  [
    'a machine without user namespaces',
    { '/proc/sys/user/max_user_namespaces': '0' },
    'bwrap: No permissions to create new namespace',
    /sysctl user.max_user_namespaces=/,
  ],
  [
    'Docker',
    { '/.dockerenv': '', [apparmor]: '1' },
    'bwrap: No permissions to create new namespace',
    /docker run/,
  ],
  ['podman', { '/run/.containerenv': '' }, `bwrap: Can't mount proc on /newroot/proc`, /container/],
  [
    'an nspawn container',
    { '/proc/1/environ': 'TERM=x\0container=systemd-nspawn\0' },
    'bwrap: no',
    /container/,
  ],
]

for (const [what, files, said, remedy] of machines) {
  test(`explainFault() keeps bwrap's words, and has the remedy for ${what}`, () => {
    const machine = { has: (path: string) => path in files, read: (path: string) => files[path] }

    const explained = explainFault(said, machine)

    assert.ok(explained.startsWith(`${said}; `))
    assert.match(explained, remedy)
  })
}

test.run()
