import { readFileSync, statSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { assertSharedLocks, findOwnLocks } from '../../lib/run/lock-mount.ts'
import { test } from '../support/test.ts'

/** Device 0:47, as it comes from stat(2). */
const DEVICE = 47
const lineOf = (type: string, options: string) =>
  `21 1 8:1 / / rw - ext4 /dev/sda1 rw\n97 21 0:47 / /srv/the\\040models rw,relatime shared:1 - ${type} nas:/export rw,${options}\n`

for (const [type, options, option] of [
  ['nfs', 'vers=3,nolock,local_lock=all', 'nolock'],
  ['nfs4', 'vers=4.2,local_lock=flock', 'local_lock=flock'],
  ['nfs4', 'vers=4.2,local_lock=all', 'local_lock=all'],
  ['lustre', 'localflock', 'localflock'],
]) {
  test(`a filesystem of type ${type} mounted with ${option} has no locks that others see`, () => {
    assert.equal(findOwnLocks(DEVICE, lineOf(type!, options!)), { point: '/srv/the models', option })
  })
}

for (const [type, options] of [
  ['nfs', 'vers=3,local_lock=none'],
  ['nfs4', 'vers=4.2,local_lock=posix'],
  ['lustre', 'flock'],
  ['ext4', 'nolock'],
]) {
  test(`a filesystem of type ${type} mounted with ${options} has locks`, () => {
    assert.is(findOwnLocks(DEVICE, lineOf(type!, options!)), undefined)
  })
}

test('a device is found by the name that the kernel gives it', () => {
  const { dev } = statSync('/')
  const mountinfo = readFileSync('/proc/self/mountinfo', 'utf8')
  const root = mountinfo.split('\n').find(line => line.split(' ')[4] === '/')!
  const changed = root.replace(/ - .*/, ' - nfs nas:/export rw,nolock')

  assert.is(findOwnLocks(dev, changed)?.point, '/')
  assertSharedLocks('/')
})

test.run()
