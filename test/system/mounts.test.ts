import * as assert from 'uvu/assert'
import { parseMounts } from '../../lib/system/mounts.ts'
import { test } from '../support/test.ts'

test('parseMounts() decodes what stands in a table of mounts, with and without optional fields', () => {
  const table = `22 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw,errors=remount-ro
97 22 0:47 / /srv/the\\040models rw - overlay over\\011lay rw,upperdir=/u
`

  assert.equal(parseMounts(table), [
    {
      id: '22',
      point: '/',
      device: '8:1',
      type: 'ext4',
      source: '/dev/sda1',
      options: ['rw', 'relatime', 'rw', 'errors=remount-ro'],
    },
    {
      id: '97',
      point: '/srv/the models',
      device: '0:47',
      type: 'overlay',
      source: 'over\tlay',
      options: ['rw', 'rw', 'upperdir=/u'],
    },
  ])
})

test.run()
