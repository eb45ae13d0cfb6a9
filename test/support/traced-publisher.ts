import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { loader, moduleOf } from './places.ts'
import type { Answer } from './publisher.ts'
import { sandbox } from './sandbox.ts'

/** How a command ended: answered, or with the end of its process. */
export type Ended = { signal: NodeJS.Signals | null; code: number | null; stderr: string; log: string }

/** A command that goes on under strace. */
export type Traced = {
  /** The process that carries it out. */
  pid: number
  /** The calls that strace has seen so far. */
  log: () => string
  ended: Promise<Ended>
}

/** Publishers that wait for a command: to start one takes longer than its work. */
const waiting: ChildProcess[] = []

/**
 * Have a command of test/support/publisher.ts carried out under strace.
 *
 * @param tracing what strace is to trace and inject; nothing of the process's start is in it
 * @param use what to do while the command goes on
 */
export async function trace(
  tracing: string[],
  command: string[],
  use: (traced: Traced) => Promise<void> = async () => {},
): Promise<Ended> {
  await using logs = await sandbox({ log: '' })
  const publisher = waiting.pop() ?? (await startPublisher())
  const strace = spawn('strace', ['-f', '-y', '-o', logs.path('log'), ...tracing, '-p', `${publisher.pid}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const detached = once(strace, 'exit')
  await attached(strace)
  const log = () => readFileSync(logs.path('log'), 'utf8')
  const ended = answerOf(publisher, command).then(async answer => {
    if (answer.signal === null) strace.kill('SIGINT')
    await detached
    return { ...answer, log: log() }
  })
  await use({ pid: publisher.pid!, log, ended })
  const answer = await ended
  if (answer.signal === null) waiting.push(publisher)
  return answer
}

async function startPublisher(): Promise<ChildProcess> {
  const child = fork(moduleOf('test/support/publisher.ts'), {
    execArgv: loader,
    // One thread for files, so that the calls come in one order and have one count.
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  await once(child, 'message')
  // It ends with us.
  child.unref()
  child.channel!.unref()
  return child
}

async function attached(strace: ChildProcess): Promise<void> {
  let said = ''
  return new Promise((resolve, reject) => {
    strace.stderr!.setEncoding('utf8').on('data', chunk => {
      said += chunk
      if (/^strace: Process \d+ attached/m.test(said)) resolve()
    })
    strace.once('error', reject)
    strace.once('exit', () => reject(new Error(`strace ended: ${said}`)))
  })
}

function answerOf(publisher: ChildProcess, command: string[]): Promise<Omit<Ended, 'log'>> {
  return new Promise(resolve => {
    const onExit = (code: number | null, signal: NodeJS.Signals | null) =>
      resolve({ signal, code, stderr: '' })
    publisher.once('exit', onExit)
    publisher.once('message', ({ code, said }: Answer) => {
      publisher.off('exit', onExit)
      resolve({ signal: null, code, stderr: said && `${said}\n` })
    })
    publisher.send(command)
  })
}
