import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import * as assert from 'uvu/assert'
import { cutHoles, emptyAndClose, openToCut } from '../../lib/system/cut-short.ts'
import { MIB } from '../../lib/text.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

test('cutHoles() leaves a file what it has, and no room for more', async () => {
  await using box = await sandbox({ written: 64 * 1024 })
  const fd = openSync(box.path('written'), 'r+')
  ftruncateSync(fd, 100 * MIB)

  await cutHoles(fd)
  const { size, blocks } = fstatSync(fd)
  assert.ok(size === blocks * 512 && size >= 64 * 1024 && size < MIB, `${size}`)
  await cutHoles(fd)
  assert.is(fstatSync(fd).size, size)
  await emptyAndClose(fd)
  assert.is(statSync(box.path('written')).size, 0)
})

test('openToCut() opens what is meant whatever its mode, and through no link', async () => {
  await using box = await sandbox()
  writeFileSync(box.path('file'), 'x', { mode: 0 })
  symlinkSync(box.path('file'), box.path('link'))
  const { ino } = statSync(box.path('file'), { bigint: true })
  const isMeant = (it: { ino: bigint }) => it.ino === ino

  assert.is(openToCut(box.path('link'), isMeant), undefined)
  assert.is(
    openToCut(box.path('file'), it => it.ino !== ino),
    undefined,
  )
  assert.is(openToCut(box.path('gone'), isMeant), undefined)
  const fd = openToCut(box.path('file'), isMeant)
  assert.is(fd === undefined, false)
  const again = openToCut(`/proc/self/fd/${fd}`, isMeant, true)
  assert.is(again === undefined, false)
  assert.is(readFileSync(box.path('file'), 'utf8'), 'x')
  closeSync(fd!)
  closeSync(again!)
})

test.run()
