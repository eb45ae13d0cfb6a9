import * as assert from 'uvu/assert'
import { accountOf } from '../../lib/storage/capacity.ts'
import { MIB } from '../../lib/text.ts'
import { Looker } from '../../lib/training/looker.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

/** Looks after pruning 10 MiB while others have written 50 MiB, or the filesystem frees late: nobody can tell which. */
async function looks(isTooMuch: (freeBytes: number, enoughBytes: number) => boolean): Promise<number> {
  await using box = await sandbox({ 'work/model.onnx': 1000 })
  const account = accountOf(box.dir)
  const { freeBytes, freeInodes } = account
  const start = { usedBytes: 0, usedInodes: 0, freeBytes, freeInodes, walkedBytes: 0, account }
  const end = new AbortController()
  const looker = new Looker(
    {
      job: 'core',
      dir: box.dir,
      isCapped: false,
      isDiskLimit: false,
      limitBytes: MIB,
      limitInodes: Infinity,
      reserveBytes: 0,
      reserveInodes: 0,
      training: {
        processes: () => [],
        isFiltered: true,
        stopUnseen: async () => false,
        bytesWritten: () => 0,
        crew: async () => undefined,
        firstCrew: undefined,
      },
      rules: {},
      start,
      countsAtOnce: true,
    },
    end.signal,
  )
  const before = { ...(await looker.count()), freeBytes: freeBytes + 40 * MIB }
  let rounds = 0
  await looker
    .countAfter(before, 10 * MIB, look => {
      if (look.freeBytes < freeBytes + 25 * MIB && ++rounds === 3) end.abort()
      return isTooMuch(look.freeBytes, freeBytes + 25 * MIB)
    })
    .catch(error => assert.is(error.name, 'AbortError'))
  return rounds
}

test('after pruning what is above its quota is told at once, whatever others write meanwhile', async () => {
  assert.is(await looks(() => true), 1)
})

test('after pruning space that may come late is waited for where the disk is what limits', async () => {
  assert.is(await looks((freeBytes, enoughBytes) => freeBytes < enoughBytes), 3)
})

test.run()
