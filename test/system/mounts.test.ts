import * as assert from 'uvu/assert'
import { parseMounts, pathOnFilesystem } from '../../lib/system/mounts.ts'
import { test } from '../support/test.ts'

test('parseMounts() decodes what stands in a table of mounts, with and without optional fields', () => {
  const table = `22 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw,errors=remount-ro
97 22 0:47 /part /srv/the\\040models rw - overlay over\\011lay rw,upperdir=/u
`

  assert.equal(parseMounts(table), [
    {
      id: '22',
      point: '/',
      root: '/',
      device: '8:1',
      type: 'ext4',
      source: '/dev/sda1',
      options: ['rw', 'relatime', 'rw', 'errors=remount-ro'],
    },
    {
      id: '97',
      point: '/srv/the models',
      root: '/part',
      device: '0:47',
      type: 'overlay',
      source: 'over\tlay',
      options: ['rw', 'rw', 'upperdir=/u'],
    },
  ])
})

test('pathOnFilesystem() tells where a path lies, whichever mount leads there', () => {
  const [whole, part] = parseMounts(
    '1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:1 /srv/models /mnt rw - ext4 /dev/a rw\n',
  )

  assert.is(pathOnFilesystem(whole!, '/srv/models/core'), '/srv/models/core')
  assert.is(pathOnFilesystem(part!, '/mnt/core'), '/srv/models/core')
  assert.is(pathOnFilesystem(part!, '/mnt'), '/srv/models')
  assert.is(pathOnFilesystem(part!, '/mnt2/core'), undefined)
})

test.run()
