import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { recover } from '../../lib/models/recovery.ts'
import { checkPublished } from '../../lib/models.ts'
import { type Assess, copyOf, inject, type Outcome } from './faults.ts'
import { onnxModel } from './onnx-fixture.ts'
import { publishFlatFiles, sha256Of, trainAndPublish, writeFiles } from './publishing.ts'
import { type Sandbox, sandbox } from './sandbox.ts'

export const globs = ['**/*.onnx']

/** @param extras how many models a set has beside the one with external data */
export function setsOf(extras: number) {
  const names = Array.from({ length: extras }, (_, index) => `sub/${index}.onnx`)
  const [old, next] = [setOf('old', names), setOf('new', names)]
  const publishNext = ['publish', ...Object.keys(next).filter(name => name.endsWith('.onnx'))]
  const templates = new Map<string, Promise<Sandbox>>()

  /** Made once, and copied for each point. */
  const copied = (name: string, make: () => Promise<Sandbox>) => async () => {
    const template = templates.get(name) ?? make()
    templates.set(name, template)
    return copyOf(await template)
  }
  /** The old set is published, the new one is in `work/`. */
  const prepared = copied('prepared', async () => {
    const box = await sandbox()
    await trainAndPublish(box.dir, old)
    writeFiles(box.path('work'), next)
    return box
  })
  /** Both sets are published, the new one is current. */
  const published = copied('published', async () => {
    const box = await prepared()
    assert.is((await inject(box.dir, ['-e', 'trace=none'], publishNext)).code, 0)
    await recover(box.dir)
    return box
  })
  /** Both sets are published, and the old one is current again. */
  const rolledBack = copied('rolled back', async () => {
    const box = await published()
    assert.is((await inject(box.dir, ['-e', 'trace=none'], ['rollback', '1'])).code, 0)
    await recover(box.dir)
    return box
  })
  /** A publication that was killed when it had made its generation and was about to make it current. */
  const interrupted = copied('interrupted', async () => {
    const box = await prepared()
    const path = box.path('current.next')
    const tracing = ['-P', path, '-e', 'trace=rename', '-e', 'inject=rename:signal=KILL:when=1']
    await inject(box.dir, tracing, publishNext)
    assert.is(readlinkSync(path), 'generations/2')
    return box
  })
  /** The old set as it was published before there were generations. */
  const flat = async () => {
    const box = await sandbox()
    publishFlatFiles(box.dir, old)
    return box
  }

  /** Check what readers find at this moment: by `current` all files of one set; by flat names a model with its own data. */
  function assertWhole(box: Sandbox): void {
    const { files } = JSON.parse(readFileSync(box.path('current/manifest.json'), 'utf8'))
    for (const [name, sha256] of Object.entries(files)) {
      assert.is(sha256Of(readFileSync(box.path('current', name))), sha256)
    }
    const model = readFileSync(box.path('core.onnx'))
    const isOld = model.equals(old['core.onnx'] as Buffer)
    assert.is(model.includes(isOld ? 'w.bin' : 'w-2.bin'), true)
    assert.is(
      readFileSync(box.path(isOld ? 'w.bin' : 'w-2.bin'), 'utf8'),
      isOld ? 'old weights' : 'new weights',
    )
  }

  /** The folder holds the old set or the new one and nothing else, and its manifest says so; flat names are of it. */
  async function assertConsistent(box: Sandbox): Promise<Outcome> {
    assertWhole(box)
    const isOld = readlinkSync(box.path('current')) === 'generations/1'
    const expected = Object.keys(isOld ? old : next).map(name =>
      name === 'w.bin' && !isOld ? 'w-2.bin' : name,
    )
    const names = [...expected, 'manifest.json'].sort()
    assert.equal(filesIn(join(box.dir, 'current/.')), names)
    const flats = filesIn(box.dir).filter(name => !/^(work|generations|current)(\/|$)/.test(name))
    assert.equal(flats, names)
    for (const name of names)
      assert.is(lstatSync(box.path(name)).ino, statSync(box.path('current', name)).ino)
    const { missing, adopt } = await checkPublished(box.dir, globs)
    assert.equal({ missing, adopt }, { missing: false, adopt: [] })
    return isOld ? 'old' : 'new'
  }

  /** After a kill readers find one set, and the next start settles the rest. */
  const assertCrash: Assess = async (box, { signal }) => {
    assert.is(signal, 'SIGKILL')
    assertWhole(box)
    await recover(box.dir)
    return assertConsistent(box)
  }

  /** After a refusal by the system readers find one set, an error says what was refused, and nothing temporary stays. */
  const assertRefusal =
    (errno: string, what: string): Assess =>
    async (box, { code, stderr }) => {
      assert.is(code, 1)
      assert.match(stderr, new RegExp(`^${what}: ${errno}: .*\n$`))
      assertWhole(box)
      const isThere = ['generations/next', 'current.next'].filter(name => existsSync(box.path(name)))
      // The next start removes what could not be removed either.
      if (isThere.length) await recover(box.dir)
      await recover(box.dir)
      return assertConsistent(box)
    }

  /** The flat files are the old set at every moment, valid for whoever looks, and the next start finishes. */
  async function assertUpgrading(box: Sandbox): Promise<Outcome> {
    for (const [name, content] of Object.entries(old)) {
      assert.equal(readFileSync(box.path(name)), Buffer.from(content))
    }
    assert.is((await checkPublished(box.dir, globs)).missing, false)
    await recover(box.dir)
    assert.is((await checkPublished(box.dir, globs)).missing, false)
    return 'old'
  }

  return {
    old,
    next,
    publishNext,
    prepared,
    published,
    rolledBack,
    interrupted,
    flat,
    assertCrash,
    assertRefusal,
    assertUpgrading,
    async close() {
      for (const template of templates.values()) await (await template)[Symbol.asyncDispose]()
    },
  }
}

/** A set as a training leaves it: each file says which one it is of. External data has the same name in each. */
function setOf(producer: string, extras: string[]): Record<string, Buffer | string> {
  const extra = extras.map(name => [name, onnxModel({ producer: `${producer} ${name}` })])
  return {
    'w.bin': `${producer} weights`,
    'core.onnx': onnxModel({ producer, external: [{ location: 'w.bin' }] }),
    ...Object.fromEntries(extra),
  }
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => !statSync(join(folder, name)).isDirectory())
    .sort()
}
