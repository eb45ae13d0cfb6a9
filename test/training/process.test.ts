import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { TrainerError } from '../../lib/errors.ts'
import { isExiting, isStopped, listProcesses, readProc } from '../../lib/system/processes.ts'
import { safePath } from '../../lib/system/programs.ts'
import { hasLostAny, type Listener, Training } from '../../lib/training/process.ts'
import { contain, useSandbox } from '../../lib/training/sandbox.ts'
import { isSweep, loader, moduleOf, root } from '../support/places.ts'
import { type Sandbox, sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, sampled, test } from '../support/test.ts'

const canSandbox = useSandbox('core', 'auto')
const sandboxed = skipUnless(test, canSandbox, 'needs bubblewrap')
const withPython = skipUnless(test, existsSync('/usr/bin/python3'), 'needs python3')

const unheard: Listener = { onLines() {}, onRedraw() {}, onRetry() {}, signal: new AbortController().signal }

const containmentOf = (box: Sandbox, isSandboxed: boolean, path = safePath) => ({
  jobDir: box.path('job'),
  publishedDir: box.path('job'),
  workingDir: box.dir,
  isSandboxed,
  isCapped: false,
  network: 'host' as const,
  maxFileBytes: 2 ** 30,
  path,
})

/** A training of `script`, an ES module, in the box; its lines so far; its lock is an ordinary open file. */
async function start(box: Sandbox, script: string, isSandboxed = false, more: Record<string, string> = {}) {
  const lines: string[] = []
  const lockFd = openSync(box.path('lock'), 'a')
  writeFileSync(box.path('script.mjs'), `import { spawn, spawnSync } from 'node:child_process'\n${script}`)
  const env = { PATH: safePath, RANSOMEYE_OUTPUT_DIR: box.path('job', 'work'), ...more }
  const training = await Training.start(
    {
      ...contain(['node', 'script.mjs'], containmentOf(box, isSandboxed, env.PATH)),
      cwd: box.dir,
      env,
      lockFd,
    },
    { ...unheard, onLines: more => lines.push(...more) },
  )
  closeSync(lockFd)
  return { training, lines, said: (line: string) => until(`the line ${line}`, () => lines.includes(line)) }
}

const folders = { 'job/work/tmp/.keep': 0 }

/** Children that leave the process group in every way there is, each with a mark in its command line. */
const escapes = (mark: string) => `
const escape = (...argv) => spawn(argv[0], argv.slice(1), { stdio: 'ignore', detached: true }).unref()
escape('setsid', 'sh', '-c', 'sleep 300; : ${mark}')
escape('sh', '-c', '(sleep 300; : ${mark}) & disown 2>/dev/null; exit 0')
escape('env', '-i', '/usr/bin/setsid', '/bin/sh', '-c', '(setsid /bin/sleep 300 & ) ; sleep 300; : ${mark}')
spawn('sh', ['-c', 'sleep 300; : ${mark}'], { stdio: 'ignore' })
setTimeout(() => console.log('ready'), 300)
setInterval(() => {}, 1000)`

test('Training gives exit code, output of both streams and the time it took', async () => {
  await using box = await sandbox(folders)
  const { training, lines } = await start(
    box,
    `console.log('out'); console.error('err'); process.exitCode = 3`,
  )

  const { exitCode, signal, seconds } = await training.exited
  await training.kill()

  assert.equal([exitCode, signal], [3, null])
  assert.equal(lines.sort(), ['err', 'out'])
  assert.ok(seconds > 0 && seconds < 20)
})

test('Training takes little of a flood of output in one turn of the event loop, and all of it by its end', async () => {
  await using box = await sandbox(folders)
  const flood = Array.from({ length: 20_000 }, (_, n) => `${n} `.padEnd(100, 'x'))
  const { training, lines } = await start(
    box,
    `for (let n = 0; n < 20_000; n++) console.log((n + ' ').padEnd(100, 'x'))`,
  )
  let isOver = false
  training.exited.then(() => {
    isOver = true
  })
  let most = 0

  for (let taken = 0; !isOver; taken = lines.length) {
    const slow = new Int32Array(new SharedArrayBuffer(4))
    Atomics.wait(slow, 0, 0, 5) // meanwhile what it says piles up
    await nextTurn()
    most = Math.max(most, lines.length - taken)
  }
  await training.kill()

  assert.equal(lines, flood)
  assert.ok(most > 0 && most * 101 < 64 * 1024, `${most} lines in one turn`)
})

inSweep(
  'Training takes nothing that runs beside it for a part of it, however early it is looked at',
  async () => {
    await using box = await sandbox(folders)

    for (let round = 0; round < 10; round++) {
      const { training } = await start(box, 'setTimeout(() => {}, 10_000)')
      const seen = new Set<number>()
      for (const end = performance.now() + 60; performance.now() < end; ) {
        for (const pid of training.processes()) seen.add(pid)
        await delay(1)
      }
      // The programs that have only set it up may have been seen too, but end by themselves.
      const setUp = () => listProcesses().filter(({ pid }) => seen.has(pid) && pid !== training.pid)
      await until('nothing else of what was seen is left', () => !setUp().length)
      await training.kill()
    }
  },
)

test('contain() asks for no larger file than we may write ourselves', async () => {
  await using box = await sandbox()
  const program = `import { contain } from '${moduleOf('lib/training/sandbox.ts')}'
    const { argv } = contain(['true'], ${JSON.stringify(containmentOf(box, false))})
    process.stdout.write(JSON.stringify(argv))`
  const limits = [2 ** 20, 2 ** 31].map(bytes => {
    const node = [process.execPath, ...loader, '--input-type=module', '--eval', program]
    return JSON.parse(
      execFileSync('prlimit', [`--fsize=${bytes}`, ...node], { cwd: root, encoding: 'utf8' }),
    )[1]
  })

  assert.equal(limits, [`--fsize=${2 ** 20}`, `--fsize=${2 ** 30}`])
})

/** A program that starts a training and is killed before that has begun. */
const startsAndDies = (training: object, afterMs: number) => `
const { Training } = await import(${JSON.stringify(moduleOf('lib/training/process.ts'))})
setTimeout(() => process.kill(process.pid, 'SIGKILL'), ${afterMs})
const { inputs, ...training } = ${JSON.stringify(training)}
const start = { ...training, inputs: inputs.map(it => Buffer.from(it, 'latin1')), lockFd: 3 }
await Training.start(start, { onLines() {}, onRedraw() {}, onRetry() {}, signal: new AbortController().signal })`

for (const isSandboxed of [false, true]) {
  const where = isSandboxed ? 'in the sandbox' : 'without a sandbox'
  const testHere = isSandboxed ? sandboxed : inSweep
  const sampledHere = isSandboxed ? skipUnless(sampled, canSandbox, 'needs bubblewrap') : inSweep

  sampledHere(`Training ${where} does not outlive whoever is killed while it starts`, async () => {
    await using box = await sandbox(folders)
    const command = ['sh', '-c', 'sleep 300; true', box.path('job', 'work')]
    const { argv, inputs } = contain(command, containmentOf(box, isSandboxed))
    const training = {
      argv: ['sh', '-c', 'sleep 0.2; exec "$@"', 'sh', ...argv], // as programs that a slow disk brings
      inputs: inputs.map(input => input.toString('latin1')),
      cwd: box.dir,
      env: { PATH: safePath },
      isSandboxed,
    }
    const lockFd = openSync(box.path('lock'), 'a')
    const remains = () => listProcesses().filter(({ pid }) => readProc(`${pid}/cmdline`)?.includes(box.dir))

    for (const afterMs of isSweep ? [30, 60, 120] : [60]) {
      const program = [...loader, '--input-type=module', '--eval', startsAndDies(training, afterMs)]
      const { signal, stderr } = spawnSync(process.execPath, program, {
        stdio: ['ignore', 'ignore', 'pipe', lockFd],
      })
      assert.is(signal, 'SIGKILL', String(stderr))
      await delay(700)

      assert.equal(remains(), [])
    }
    closeSync(lockFd)
  })

  testHere(
    `Training ${where} runs no start-up file of a shell, which an earlier training may have written`,
    async () => {
      await using box = await sandbox({ ...folders, 'home/.bashrc': 'echo ran > "$HOME/ran"; exit 7' })
      const { training } = await start(box, 'setTimeout(() => {}, 500)', isSandboxed, {
        HOME: box.path('home'),
      })
      const watchdogs = () =>
        listProcesses().filter(({ pid }) => readProc(`${pid}/cmdline`)?.endsWith(`\0${training.pid}\0`))

      // By a socket bash would take itself for a remote shell, and run ~/.bashrc.
      const stdins = () => watchdogs().map(({ pid }) => readlinkSync(`/proc/${pid}/fd/0`))
      await until('one watchdog, with no stdin', () => stdins().join() === '/dev/null')
      const { exitCode } = await training.exited
      await training.kill()

      assert.is(exitCode, 0)
      assert.not(existsSync(box.path('home', 'ran')))
    },
  )

  testHere(
    `Training ${where} looks its command up on its own PATH, and what that is wrapped in on ours`,
    async () => {
      await using box = await sandbox({ ...folders, 'bin/.keep': 0 })
      symlinkSync(process.execPath, box.path('bin', 'node'))

      const { training, lines } = await start(box, 'console.log(process.env.PATH)', isSandboxed, {
        PATH: box.path('bin'),
      })
      const { exitCode } = await training.exited
      await training.kill()

      assert.equal([exitCode, ...lines], [0, box.path('bin')])
    },
  )

  testHere(`Training ${where} has the environment that it was given, and nothing else`, async () => {
    await using box = await sandbox(folders)
    const odd = { 'no.name-to-a-shell': '1' }
    const { training, lines } = await start(box, 'console.log(JSON.stringify(process.env))', isSandboxed, odd)

    await training.exited
    await training.kill()

    const env = { PATH: safePath, RANSOMEYE_OUTPUT_DIR: box.path('job', 'work'), ...odd }
    assert.equal(JSON.parse(lines.join('')), env)
  })

  testHere(`Training ${where} can open its output by the names of /dev/stdout and /dev/stderr`, async () => {
    await using box = await sandbox(folders)
    const script = `
const { status } = spawnSync('sh', ['-c', 'echo out > /dev/stdout; echo err | tee /dev/stderr'], { stdio: 'inherit' })
process.exitCode = status`
    const { training, lines } = await start(box, script, isSandboxed)

    const { exitCode } = await training.exited
    await training.kill()

    assert.equal([exitCode, ...lines.sort()], [0, 'err', 'err', 'out'])
  })

  testHere(`Training ${where} names the signal that ended it`, async () => {
    await using box = await sandbox(folders)
    const { training } = await start(box, `process.kill(process.pid, 'SIGALRM')`, isSandboxed)

    assert.is((await training.exited).signal, 'SIGALRM')
  })

  testHere(`end() ${where} lets a training finish on SIGTERM`, async () => {
    await using box = await sandbox(folders)
    const script = `process.on('SIGTERM', () => { console.log('saved'); process.exit(0) }); setInterval(() => {}, 9); console.log('ready')`
    const { training, lines, said } = await start(box, script, isSandboxed)
    await said('ready')

    await training.end(10_000)

    assert.is((await training.exited).exitCode, 0)
    assert.ok(lines.includes('saved'))
  })

  testHere(
    `end() ${where} gives the grace to every process, also when the first dies at once, and no longer`,
    async () => {
      await using box = await sandbox(folders)
      writeFileSync(
        box.path('worker.mjs'),
        `import { writeFileSync } from 'node:fs'
process.on('SIGTERM', () => setTimeout(() => { writeFileSync(process.env.RANSOMEYE_OUTPUT_DIR + '/saved', ''); process.exit() }, 700))
setInterval(() => {}, 9)
console.log('ready')`,
      )
      // One of two workers has left the group; the launcher dies of the signal.
      const script = `for (const detached of [false, true]) spawn('node', ['worker.mjs'], { stdio: 'inherit', detached }); setInterval(() => {}, 9)`
      const { training, lines } = await start(box, script, isSandboxed)
      await until('both are ready', () => lines.length === 2)

      const startedMs = performance.now()
      await training.end(15_000)

      const tookMs = performance.now() - startedMs
      assert.is((await training.exited).signal, 'SIGTERM')
      assert.ok(existsSync(box.path('job', 'work', 'saved')))
      assert.ok(tookMs > 600 && tookMs < 10_000, `${tookMs} ms`)
      assert.equal(training.processes(), [])
    },
  )

  testHere(`end() ${where} kills a training that ignores SIGTERM, after the grace`, async () => {
    await using box = await sandbox(folders)
    const script = `process.on('SIGTERM', () => console.log('no')); setInterval(() => {}, 9); console.log('ready')`
    const { training, lines, said } = await start(box, script, isSandboxed)
    await said('ready')

    const startedMs = performance.now()
    await training.end(400)

    assert.ok(performance.now() - startedMs >= 400)
    assert.ok(lines.includes('no'))
    assert.equal(training.processes(), [])
  })

  testHere(`stop() ${where} stops every process, resume() continues it`, async () => {
    await using box = await sandbox(folders)
    const script = `spawn('sh', ['-c', 'while :; do :; done']); let n = 0; setInterval(() => console.log(++n), 5)`
    const { training, lines } = await start(box, script, isSandboxed)
    const takers = isSandboxed ? [firstOf(training)] : [] // whoever takes in the dead goes on
    await until('the child runs', () => lines.length > 3 && training.processes().length > 1)

    await until('all are stopped', () => training.stop())
    const processes = training.processes()
    const moving = processes.filter(pid => !isStopped(pid))
    await delay(100) // lines on their way
    const before = lines.length
    await delay(200)
    const after = lines.length
    training.resume()
    await until('it goes on', () => lines.length > after)
    await training.end(0)

    assert.ok(processes.length > 1 + takers.length)
    assert.equal(moving, takers)
    assert.is(after, before)
  })

  testHere(`stop() ${where} stops also what has its grace, which goes on from resume() alone`, async () => {
    await using box = await sandbox(folders)
    const script = `process.on('SIGTERM', () => { console.log('told'); setTimeout(() => process.exit(), 1000) }); setInterval(() => console.log('on'), 5)`
    const { training, lines, said } = await start(box, script, isSandboxed)
    await said('on')

    await until('all are stopped', () => training.stop())
    const runs = training.runs()
    const ending = training.end(20_000)
    await delay(200)
    const [isToldSoon, hasRun] = [lines.includes('told'), training.hasRunSince(runs)]
    training.resume()
    await said('told')
    await until('all are stopped in the grace', () => training.stop())
    await delay(100) // lines on their way
    const before = lines.length
    await delay(200)
    const after = lines.length
    training.resume()
    await ending

    assert.equal([isToldSoon, hasRun, after - before], [false, false, 0])
    assert.ok(lines.length > after)
    assert.is((await training.exited).exitCode, 0)
  })
}

sandboxed(
  'kill() in the sandbox leaves nothing of children by setsid, double fork and a cleared environment',
  async () => {
    await using box = await sandbox(folders)
    const { training, said } = await start(box, escapes(box.dir), true)
    await said('ready')
    const before = marked(box.dir).length

    await training.kill()

    assert.ok(before >= 4, `${before} marked children`)
    assert.equal(marked(box.dir), [])
  },
)

sandboxed(
  'stopUnseen() stops all in the sandbox by the kernel itself, and resume() continues it',
  async () => {
    await using box = await sandbox(folders)
    const { training, said } = await start(box, escapes(box.dir), true)
    await said('ready')
    const inside = marked(box.dir)

    training.stopUnseen()
    await until('all are stopped', () => inside.every(isStopped))
    training.resume()
    await until('all go on', () => !inside.some(isStopped))

    assert.ok(inside.length >= 4, `${inside.length} marked children`)
    await training.kill()
  },
)

sandboxed('crew() tells whether a process or a thread has ended, of whomever nobody has met', async () => {
  await using box = await sandbox(folders)
  const script = `
    process.on('SIGUSR1', () => spawn('sleep', ['299']))
    process.on('SIGUSR2', () => spawn('sh', ['-c', 'true']).on('exit', () => console.log('it has ended')))
    console.log('ready')
    setInterval(() => {}, 1000)`
  const { training, said } = await start(box, script, true)
  await said('ready')
  const crews = [await training.crew()]
  const lost = async () => {
    crews.push(await training.crew())
    return hasLostAny(crews.at(-2)!, crews.at(-1)!)
  }
  const inside = training.processes().at(-1)!

  const ofNobody = await lost()
  process.kill(inside, 'SIGUSR1')
  const sleeper = await until('one more is there', () => training.processes().find(pid => pid > inside))
  const ofOneMore = await lost()
  process.kill(inside, 'SIGUSR2')
  await said('it has ended')
  const ofOneUnmet = await lost()
  process.kill(sleeper, 'SIGKILL')
  await until('it is gone', () => !training.processes().includes(sleeper))
  const ofOneMet = await lost()

  assert.equal([ofNobody, ofOneMore, ofOneUnmet, ofOneMet], [false, false, true, true])
  assert.not(hasLostAny(training.firstCrew!, crews[0]!))
  await training.kill()
})

sandboxed('stop() leaves no dead process in the sandbox, which each list would meet', async () => {
  await using box = await sandbox(folders)
  const script = `spawn('sh', ['-c', '(exec sleep 299) & exit'])\nsetTimeout(() => console.log('ready'), 300)\nsetInterval(() => {}, 1000)`
  const { training, said } = await start(box, script, true)
  await said('ready')
  const orphan = () =>
    listProcesses().find(
      it => it.parent === firstOf(training) && /^sleep/.test(readProc(`${it.pid}/cmdline`) ?? ''),
    )
  const { pid } = await until('it has no parent any more', orphan)

  await until('all are stopped', () => training.stop())
  process.kill(pid, 'SIGKILL')
  await until('it is gone', () => readProc(`${pid}/stat`) === undefined)

  await training.kill()
})

sandboxed('stopUnseen() blames nobody for a sandbox that comes to its end meanwhile', async () => {
  await using box = await sandbox(folders)
  const { training, said } = await start(box, `console.log('ready'); setInterval(() => {}, 1000)`, true)
  await said('ready')
  const first = firstOf(training)
  // While this one is not waited for by its parent, the first process of the sandbox ends no further.
  const user = process.getuid!() ? [`--user=/proc/${training.pid}/ns/user`, '--preserve-credentials'] : []
  const entered = spawn('nsenter', [...user, `--pid=/proc/${first}/ns/pid`, 'sh', '-c', 'sleep 300; exit'])
  await until('it is in there', () => listProcesses().some(({ parent }) => parent === entered.pid))
  entered.kill('SIGSTOP')
  process.kill(first, 'SIGKILL')
  await until('the sandbox is ending', () => isExiting(first))

  const meetsMore = await training.stopUnseen()

  assert.not(meetsMore)
  entered.kill('SIGKILL')
  await training.kill()
})

test('kill() finds what outlives a sandbox outside its group and session, if it was there before the program began', async () => {
  await using box = await sandbox(folders)
  const survivor = `env -i setsid sh -c '>there; sleep 300; : ${box.dir}'`
  const script = `${survivor} & until [[ -e there ]]; do sleep 0.01; done; echo >&6; read -ru 6; exit 0`
  const lockFd = openSync(box.path('lock'), 'a')
  const command = {
    argv: ['bash', '-c', script],
    inputs: [],
    cwd: box.dir,
    env: { PATH: safePath },
    lockFd,
    isSandboxed: true,
  }

  const training = await Training.start(command, unheard)
  const { exitCode } = await training.exited
  const before = marked(box.dir).length
  await training.kill()
  closeSync(lockFd)

  // Its child may not have begun to be `sleep` yet.
  assert.equal([exitCode, before > 0], [0, true])
  assert.equal(marked(box.dir), [])
})

test('kill() of the process group alone, the naive control, leaves children behind', async () => {
  await using box = await sandbox(folders)
  const { training, said } = await start(box, escapes(box.dir))
  await said('ready')

  process.kill(-training.pid, 'SIGKILL')
  await training.exited
  const left = marked(box.dir)
  for (const pid of left) process.kill(pid, 'SIGKILL')
  await training.kill()

  assert.ok(left.length > 0)
})

sandboxed(
  'the sandbox shows the machine read-only, but for the output folder and its own /tmp, and keeps the lock',
  async () => {
    await using box = await sandbox({ ...folders, 'job/core.onnx': 'published' })
    const script = `
import fs from 'node:fs'
const attempt = (name, path) => { try { fs.writeFileSync(path, 'x'); console.log(name, 'written') } catch (error) { console.log(name, error.code) } }
attempt('etc', '/etc/ransomeye-test')
attempt('beside', ${JSON.stringify(box.path('beside'))})
attempt('job', ${JSON.stringify(box.path('job', 'own'))})
attempt('work', ${JSON.stringify(box.path('job', 'work', 'own'))})
attempt('null', '/dev/null')
attempt('tmp', '/tmp/own')
attempt('shm', '/dev/shm/own')
attempt('vartmp', '/var/tmp/own')
console.log('lock', spawnSync('sh', ['-c', 'flock -u 3']).status !== 0)
console.log('moved', spawnSync('mv', [${JSON.stringify(box.path('job', 'work'))}, ${JSON.stringify(box.path('job', 'gone'))}]).status)
console.log('unmounted', spawnSync('umount', ['/tmp']).status)
console.log('pids', fs.readdirSync('/proc').filter(name => /^[0-9]+$/.test(name)).length < 6)`
    const { training, lines } = await start(box, script, true)

    await training.exited
    await training.kill()

    assert.equal(lines, [
      'etc EROFS',
      'beside EROFS',
      'job EROFS',
      'work written',
      'null written',
      'tmp written',
      'shm written',
      'vartmp written',
      'lock true',
      'moved 1',
      'unmounted 32',
      'pids true',
    ])
    assert.is(readFileSync(box.path('job', 'work', 'tmp', 'own'), 'utf8'), 'x')
  },
)

test('useSandbox() does not try where it is off, and says why where it is required and impossible', () => {
  assert.is(useSandbox('core', 'off'), false)
  if (canSandbox) return assert.is(useSandbox('core', 'required'), true)
  assert.throws(
    () => useSandbox('core', 'required'),
    (error: unknown) =>
      error instanceof TrainerError && error.exitCode === 78 && /bubblewrap|bwrap/.test(error.message),
  )
})

/** The failure of a start. */
async function failureOf(box: Sandbox, argv: string[], cwd: string): Promise<TrainerError> {
  const lockFd = openSync(box.path('lock'), 'a')
  const command = { argv, inputs: [], cwd, env: {}, lockFd, isSandboxed: false }
  const outcome = await Training.start(command, unheard).then(
    () => 'started',
    error => error,
  )
  closeSync(lockFd)
  assert.instance(outcome, TrainerError)
  return outcome
}

test('Training says that a working folder is missing', async () => {
  await using box = await sandbox(folders)

  const { message } = await failureOf(box, ['true'], box.path('missing'))

  assert.ok(message.includes(box.path('missing')))
})

test('Training says that a command is too long', async () => {
  await using box = await sandbox(folders)

  const { message, exitCode } = await failureOf(box, ['true', 'a'.repeat(140_000)], box.dir)

  assert.is(exitCode, 78)
  assert.match(message, 'Linux takes 128 KiB')
})

/** Processes that carry the mark in their command line. */
/** The first process in the sandbox of a training. */
function firstOf(training: Training): number {
  return listProcesses().find(({ parent }) => parent === training.pid)!.pid
}

function marked(mark: string): number[] {
  return listProcesses()
    .map(({ pid }) => pid)
    .filter(pid => readProc(`${pid}/cmdline`)?.includes(`: ${mark}`))
}

/** Ways in which a stopped process does not stand still, or is not seen to. */
const WAKES = `
import ctypes, signal, struct, sys, time
libc = ctypes.CDLL(None)
signal.signal(signal.SIGCONT, lambda *_: None)
if sys.argv[1] == 'timer':
    # SIGSTOP discards the one that is due: each goes off once.
    for ms in range(20, 20_000, 40):
        timer = ctypes.c_void_p()
        libc.timer_create(1, struct.pack('Qii', 0, signal.SIGCONT, 0) + bytes(48), ctypes.byref(timer))
        libc.timer_settime(timer, 0, struct.pack('qqqq', 0, 0, ms // 1000, ms % 1000 * 1_000_000), None)
print('ready', flush=True)
if sys.argv[1] == 'vfork': libc.vfork()
time.sleep(60)`
const startWaking = (box: Sandbox, how: string) =>
  start(box, `spawn('python3', ['-c', ${JSON.stringify(WAKES)}, '${how}'], { stdio: 'inherit' })`)

withPython('Training tells that what was stopped has run since: the kernel itself can wake it', async () => {
  await using box = await sandbox(folders)
  for (const how of ['timer', 'none']) {
    const { training, said } = await startWaking(box, how)
    await said('ready')
    await until('it was stopped', () => training.stop())
    const runs = training.runs()
    if (how === 'timer') await until('its timer has woken it', () => training.hasRunSince(runs))
    else await delay(100)
    assert.is(training.hasRunSince(runs), how === 'timer')
    await training.kill()
  }
})

withPython(
  'Training tells that it waits in the kernel, where no signal reaches the parent of a vfork()',
  async () => {
    await using box = await sandbox(folders)
    const { training, said } = await startWaking(box, 'vfork')
    await said('ready')
    assert.not(training.isStuck())

    await until('all but the parent is stopped', () => training.stop() || training.isStuck())
    const runs = training.runs()
    await delay(100)

    assert.not(training.stop())
    assert.ok(training.isStuck() && !training.hasRunSince(runs))
    await training.kill()
  },
)

inSweep('Training gives its program no descriptor that was open where the run was started', async () => {
  await using box = await sandbox(folders)
  // Beyond those that bash takes for itself; Node.js opens none that a program inherits.
  const program = `exec 40>${box.path('outside')} && exec "$0" "$@"`
  const list = `console.log(fs.readdirSync('/proc/self/fd').includes('40'))`
  const script = `
import { Training } from '${moduleOf('lib/training/process.ts')}'
import { contain } from '${moduleOf('lib/training/sandbox.ts')}'
import { openSync } from 'node:fs'
const env = { PATH: ${JSON.stringify(safePath)}, RANSOMEYE_OUTPUT_DIR: ${JSON.stringify(box.path('job/work'))} }
const containment = ${JSON.stringify(containmentOf(box, false))}
const argv = ['node', '--input-type=module', '-e', ${JSON.stringify(`import fs from 'node:fs'; ${list}`)}]
const training = await Training.start(
  { ...contain(argv, containment), cwd: ${JSON.stringify(box.dir)}, env, lockFd: openSync('lock', 'a') },
  { onLines: lines => console.log(lines.join()), onRedraw() {}, onRetry() {}, signal: new AbortController().signal })
await training.exited
await training.kill()`
  writeFileSync(box.path('start.mjs'), script)
  const argv = ['-c', program, process.execPath, ...loader, 'start.mjs']

  const { stdout, stderr } = spawnSync('bash', argv, { cwd: box.dir, encoding: 'utf8' })

  assert.is(stdout, 'false\n', stderr)
})

test.run()
