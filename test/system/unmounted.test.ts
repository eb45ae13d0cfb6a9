import * as assert from 'uvu/assert'
import { unmountedAbove } from '../../lib/system/unmounted.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('unmountedAbove() finds the nearest filesystem that should be mounted and is not', async () => {
  await using box = await sandbox({
    fstab: `# /dev/sdz1 /srv/comment ext4
/dev/vda / ext4 defaults 0 1
proc /proc proc defaults 0 0
/dev/sdz2 /srv/no-such-disk ext4 defaults 0 2
UUID=1 /srv/no-such-disk/my\\040models ext4 nofail 0 2
/dev/sdz3 none swap sw 0 0
`,
  })
  const find = (path: string) => unmountedAbove(path, box.path('fstab'))

  assert.is(find('/srv/no-such-disk/models'), '/srv/no-such-disk')
  assert.is(find('/srv/no-such-disk/my models'), '/srv/no-such-disk/my models')
  assert.is(find('/srv/no-such-disk-at-all'), undefined)
  assert.is(find('/proc/models'), undefined)
  assert.is(find('/srv/comment'), undefined)
  assert.is(unmountedAbove('/srv/x', box.path('none')), undefined)
})

test.run()
