import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { root } from '../support/places.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const rootTest = skipUnless(test, process.getuid?.() === 0, 'needs root')
const hashOf = (text: string) => createHash('sha256').update(text).digest('hex')

/** A machine's root folder with a models folder of the service's user, and what a purge says there. */
async function newRoot() {
  const box = await sandbox()
  const models = box.path('root/var/lib/ransomeye/models')
  mkdirSync(join(models, '.trainer'), { recursive: true })
  copyFileSync(join(root, 'debian/ransomeye-trainer.postrm'), box.path('postrm'))
  return Object.assign(box, {
    models,
    /** A job's folder as a training has left it. */
    publish(job: string, metadata: object = {}) {
      const dir = join(models, job)
      mkdirSync(dir)
      writeFileSync(join(dir, `${job}.bin`), job)
      const manifest = { metadata: { adopted: [], ...metadata }, files: { [`${job}.bin`]: hashOf(job) } }
      writeFileSync(join(dir, 'manifest.json'), JSON.stringify(manifest, null, 2))
      const event = { event: 'model.publish', job, path: join(dir, `${job}.bin`), sha256: hashOf(job) }
      writeFileSync(join(models, '.trainer/events.jsonl'), `${JSON.stringify(event)}\n`, { flag: 'a' })
    },
    purge() {
      chmodSync(box.dir, 0o755)
      spawnSync('chown', ['-hR', '65534:65534', box.path('root')])
      const env = { PATH: process.env.PATH, DPKG_ROOT: box.path('root') }
      const { status, stderr } = spawnSync('sh', [box.path('postrm'), 'purge'], { env, encoding: 'utf8' })
      assert.is(status, 0, stderr)
      return stderr
    },
  })
}

rootTest('a purge removes what was trained here, whatever hashes its metadata has', async () => {
  await using machine = await newRoot()
  machine.publish('core', { relocated: { 'core.bin': hashOf('as the trainer wrote it') } })

  const said = machine.purge()

  assert.is(said, '')
  assert.equal(readdirSync(machine.path('root/var/lib')), [])
})

rootTest('a purge keeps models whose manifest came from another machine', async () => {
  await using machine = await newRoot()
  machine.publish('core')
  writeFileSync(join(machine.models, '.trainer/events.jsonl'), '')

  const said = machine.purge()

  assert.match(said, /kept .*\/core, whose models no journal here calls trained here/)
  assert.equal(readdirSync(join(machine.models, 'core')).sort(), ['core.bin', 'manifest.json'])
})

rootTest('a purge keeps a model that no manifest names, and says that there is something', async () => {
  await using machine = await newRoot()
  mkdirSync(join(machine.models, 'core'))
  writeFileSync(join(machine.models, 'core/core.onnx'), 'own')

  const said = machine.purge()

  assert.match(said, /^ransomeye-trainer: kept .*\/models, which is not empty$/m)
  assert.equal(readdirSync(join(machine.models, 'core')), ['core.onnx'])
})

rootTest('a purge follows no link, in the place of whatever folder', async () => {
  for (const name of ['models', 'models/core']) {
    await using machine = await newRoot()
    machine.publish('core')
    const place = machine.path('root/var/lib/ransomeye', name)
    renameSync(place, machine.path('elsewhere'))
    symlinkSync(machine.path('elsewhere'), place)

    const said = machine.purge()

    assert.match(said, /kept .*\/core, which is another folder by a link/)
    const precious = machine.path('elsewhere', name === 'models' ? 'core/core.bin' : 'core.bin')
    assert.ok(existsSync(precious))
  }
})

test.run()
