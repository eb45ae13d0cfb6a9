import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import * as assert from 'uvu/assert'
import { bundle } from '../../debian/build/bundle.ts'
import { completionOf } from '../../debian/build/help.ts'
import { copyrightOf } from '../../debian/build/licences.ts'
import { asInstalled, roffOf, withoutAbsentLinks } from '../../debian/build/manual.ts'
import { jobNames } from '../../lib/quotas.ts'
import { checkUsage } from '../../lib/storage.ts'
import { MIB } from '../../lib/text.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { root } from '../support/places.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const box = await sandbox()
process.on('exit', () => void box[Symbol.asyncDispose]())
const home = box.path('program')
const { metafile, commands } = await bundle(root, home)
const program = join(home, 'ransomeye-trainer.js')

/** A quotas file whose trainings are `body`: a module with `job` and `dir` in scope. */
function quotasWith(name: string, body: string): string {
  mkdirSync(box.path(name))
  const imports = `import fs from 'node:fs'\nconst { RANSOMEYE_JOB: job, RANSOMEYE_OUTPUT_DIR: dir } = process.env\n`
  writeFileSync(box.path(name, 'train.mjs'), imports + body)
  writeFileSync(box.path(name, 'model.onnx'), onnxModel())
  const job = { maxDiskMb: 20, train: ['node', 'train.mjs'] }
  const file = box.path(name, 'quotas.json')
  writeFileSync(file, JSON.stringify({ jobs: { core: job, dpi: job, agent: job } }))
  return file
}

const publishes = "fs.copyFileSync('model.onnx', dir + '/' + job + '.onnx')\n"

function run(...args: string[]) {
  return spawnSync(process.execPath, [program, ...args], { cwd: '/', encoding: 'utf8' })
}

inSweep('the command lists every script but those of a clone, and each tells its own name', () => {
  const { status, stdout } = run('--help')

  const scripts = readdirSync(join(root, 'scripts')).filter(name => name.endsWith('.ts'))
  const expected = scripts
    .map(name => name.replace('.ts', ''))
    .filter(it => it !== 'install' && it !== 'schema')
  assert.equal(
    [...stdout.matchAll(/^ {2}(\w+) +\S/gm)].map(([, name]) => name),
    ['run', ...expected],
  )
  assert.is(status, 0)
  for (const { name, usage, example } of commands) {
    const words = name === 'run' ? 'ransomeye-trainer' : `ransomeye-trainer ${name}`
    assert.ok(usage.startsWith(words), usage)
    assert.ok(example.startsWith(words), example)
  }
})

inSweep('no help and no message of the package names a command of a clone', () => {
  const said = [
    ...commands.map(({ name }) => run(name, '--help').stdout),
    ...commands.map(({ name }) => run(name, '--no-such-option').stderr),
    run('bundle').stderr,
    run('fleet').stderr,
    run('volume', 'create').stderr,
    run('rollback').stderr,
  ]

  assert.equal(
    said.filter(text => !text || /tsx|scripts\/(?!train)|\.ts\b/.test(text)),
    [],
  )
})

inSweep('a command that there is not is refused with the nearest', () => {
  const { status, stderr } = run('stauts')

  assert.is(status, 64)
  assert.match(stderr, /Unknown command "stauts"; the commands are run, .*; did you mean status\?\n$/)
})

inSweep(
  'run may be left out, jobs are named as ever, and a start has nothing to do once models are there',
  () => {
    const quotas = quotasWith('plain', publishes)
    const place = ['--quotas', quotas, '--models-dir', box.path('plain/models')]

    const outputs = [
      run('core', ...place),
      run('core', 'dpi', ...place),
      run('run', ...place),
      run(...place),
    ].map(({ stdout }) =>
      stdout
        .trim()
        .split('\n')
        .at(-1)!
        .replace(/^\S+ |; .*|, after .*/g, ''),
    )

    assert.equal(outputs, [
      'trained core',
      'trained dpi',
      'trained agent',
      `nothing to do: core, dpi, agent ready in ${box.path('plain/models')}`,
    ])
    for (const command of ['status', 'verify', 'prune', 'day1', 'report'])
      assert.equal(
        run(command, ...place, ...(command === 'report' ? ['--out', box.path('r.html')] : [])).status,
        0,
        command,
      )
    assert.match(readFileSync(box.path('r.html'), 'utf8'), '<style>')
  },
)

inSweep('it is started by a link, as /usr/bin has it, and finds its parts', () => {
  symlinkSync(program, box.path('link'))

  const { stdout } = spawnSync(process.execPath, [box.path('link'), '--version'], { encoding: 'utf8' })

  assert.is(stdout.trim(), JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version)
})

inSweep('faults that need a library of their own are told as in a clone', () => {
  writeFileSync(box.path('broken.json'), '{,}')

  assert.match(run('status', '--quotas', box.path('broken.json')).stderr, 'line 1, column 2')
  assert.match(run('status', '--modelsdir', '/x').stderr, 'did you mean --models-dir?')
})

inSweep('a run that trains has loaded all that it needs: an upgrade may take the files away', async () => {
  const copy = box.path('old')
  spawnSync('cp', ['-r', home, copy])
  const quotas = quotasWith(
    'upgrade',
    `${publishes}while (!fs.existsSync(dir + '/go')) await new Promise(go => setTimeout(go, 20))\n`,
  )
  const models = box.path('upgrade/models')
  const args = [join(copy, 'ransomeye-trainer.js'), '--quotas', quotas, '--models-dir', models]
  const child = spawn(process.execPath, args, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', text => (output += text))
  const ended = once(child, 'close')
  await until('core is trained', () => existsSync(join(models, 'core/work/core.onnx')))

  renameSync(copy, box.path('gone'))
  for (const job of jobNames) {
    await until(`${job} is trained`, () => existsSync(join(models, job, 'work', `${job}.onnx`)))
    writeFileSync(join(models, job, 'work/go'), '')
  }

  assert.is((await ended)[0], 0, output)
  assert.not.match(output, /WARNING|ERROR/)
})

inSweep('all of it takes at most 4 MiB, and has no map of its sources', async () => {
  assert.ok((await checkUsage(home)) < 4 * MIB)
  const names = readdirSync(home, { recursive: true, encoding: 'utf8' })
  assert.equal(
    names.filter(name => /\.(map|ts|node)$/.test(name)),
    [],
  )
})

inSweep('pages of the package name its own commands', () => {
  const pages = ['bundles', 'fleet', 'generations', 'guarantees', 'quotas', 'seed-trainers', 'trainers']
  for (const name of pages) {
    const text = asInstalled(readFileSync(join(root, `docs/${name}.md`), 'utf8'))
    assert.equal(text.match(/.*(scripts\/(?!train\/)|tasks\.ts|`core\.ts).*/g), null, name)
  }
  const bundles = asInstalled(readFileSync(join(root, 'docs/bundles.md'), 'utf8'))
  assert.match(bundles, /^ransomeye-trainer bundle core --key private\.pem --out core\.tar\.gz$/m)
})

inSweep('links in pages of the package lead to pages that it has', () => {
  const pages = readdirSync(join(root, 'docs')).filter(name => /\.(md|yml)$/.test(name))
  for (const page of ['README.md', ...pages.filter(it => it.endsWith('.md')).map(name => `docs/${name}`)]) {
    const text = withoutAbsentLinks(readFileSync(join(root, page), 'utf8'))
    const links = [...text.matchAll(/\]\(([^)#]+)[^)]*\)|(?:src|srcset)="([^"]+)"/g)].map(
      ([, a, b]) => a ?? b!,
    )
    const absent = links.filter(link => {
      const place = normalize(join(dirname(page), link))
      return (
        !link.startsWith('https://') && !['README.md', ...pages.map(name => `docs/${name}`)].includes(place)
      )
    })
    assert.equal(absent, [], page)
  }
})

inSweep('the stack trace of a defect names its functions', () => {
  const found = readdirSync(join(home, 'chunks')).filter(name =>
    readFileSync(join(home, 'chunks', name), 'utf8').includes('async function enforceLimit('),
  )

  assert.ok(found.length > 0)
})

inSweep('copyright has every library of the bundle, with a licence that is allowed', () => {
  const text = copyrightOf(root, metafile)

  for (const name of ['zx', 'globby', 'listr2', 'valibot', 'prom-client', '@bufbuild/protobuf'])
    assert.match(text, `Files: node_modules/${name}/*\n`)
  for (const name of ['tsx', 'esbuild', 'typescript']) assert.not.match(text, `node_modules/${name}/`)
  // zx brings others inside of its files, and protobuf has its licences above its code alone.
  const zx = text.slice(text.indexOf('Files: node_modules/zx/build/vendor-core.cjs\n'))
  for (const words of [
    '2024 Webpod',
    'Isaac Z. Schlueter and Contributors',
    'ISC and MIT',
    'isexe, which, zurk',
  ])
    assert.ok(zx.slice(0, 500).includes(words), words)
  const protobuf = text.slice(text.indexOf('Files: node_modules/@bufbuild/protobuf/*\n'))
  for (const holder of ['Google Inc', 'Buf Technologies, Inc'])
    assert.ok(protobuf.slice(0, 300).includes(holder), holder)
  assert.match(text, 'Neither the name of Google Inc. nor the names of its')
  assert.not.match(text, /^Copyright: (its authors|undefined|notice)/m)
  assert.not.match(text, 'spdx.org')
  const used = [...text.matchAll(/^License: (.+)$/gm)].flatMap(([, keys]) => keys!.split(' and '))
  for (const key of new Set(used))
    assert.ok(used.filter(it => it === key).length > 1, `${key} is used and has its text`)
})

inSweep('bash completes commands, options and jobs', () => {
  writeFileSync(box.path('completion'), completionOf(commands, jobNames))
  const complete = (...words: string[]) => {
    const script = `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ransomeye_trainer; printf '%s\\n' "\${COMPREPLY[@]}"`
    const argv = ['-c', script, 'bash', box.path('completion'), 'ransomeye-trainer', ...words]
    return spawnSync('bash', argv, { encoding: 'utf8', cwd: box.dir }).stdout.trim().split('\n')
  }

  assert.equal(complete('stat'), ['status'])
  assert.equal(complete('status', '--mod'), ['--models-dir'])
  assert.equal(complete('volume', 'unm'), ['unmount'])
  assert.equal(complete('status', 'ag'), ['agent'])
  assert.equal(complete('report', 'ag'), [''], 'it takes no job')
  assert.equal(complete('fleet', 'brok'), ['broken.json'])
  assert.equal(complete('--dry-run', '--every'), ['--every'])
  assert.equal(complete('status', '--quotas', 'broken'), ['broken.json'])
})

inSweep('the manual keeps what Markdown says', () => {
  const roff = roffOf(
    "# Head\n\nA `--word` of **it's**\nown, see [there](x.md).\n\n* one\n* two\n\n  ```sh\n  b -c\n  ```\n\n1. first\n2. second\n\n```sh\na\n\nb\n```\n\n| key | meaning | default |\n|---|---|---|\n| `x` | y | z |",
  )

  assert.is(
    roff,
    `.SS Head
.PP
A \\fB\\-\\-word\\fR of \\fBit\\(aqs\\fR own, see there.
.IP \\(bu 2
one
.IP \\(bu 2
two
.PP
.EX
b \\-c
.EE
.IP 1. 4
first
.IP 2. 4
second
.PP
.EX
a

b
.EE
.TP
\\fBx\\fR
meaning: y. default: z`,
  )
})

test.run()
