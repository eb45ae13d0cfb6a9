import type fs from 'node:fs'
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import type { Bytes, Folder } from '../system/bytes.ts'

/** Files of which only the charged bytes matter: those whose names do not match `except`. */
export type Ordinary = { except: RegExp; add: (bytes: number) => void }

/** Of a folder: the charged bytes of its ordinary files, and the names that need a closer look. */
type Tally = { bytes: number; names: Bytes[] }

/** A tree that takes no longer is not worth the start of a thread. */
const ALONE_MS = 60
/** Folders at a time; fewer towards the end, so that both finish together. */
const MAX_SHARE = 64

/**
 * A second thread for a large tree: it adds up the ordinary files of folders that the walk has still before it.
 * Whatever is not ordinary (folders, links, names that match `except` or are not ASCII, faults) it leaves to the walk.
 */
export class SecondThread<T> {
  readonly #ordinary: Ordinary
  readonly #startMs = performance.now()
  #thread: { worker: Worker; port: MessagePort } | undefined
  #given: Folder<T>[] = []
  #isBroken = false

  constructor(ordinary: Ordinary) {
    this.#ordinary = ordinary
  }

  get isBusy(): boolean {
    return this.#given.length > 0
  }

  close(): void {
    this.#thread?.port.close()
    void this.#thread?.worker.terminate()
  }

  /**
   * Take what the thread has done, and give it a share of the pending folders when it has nothing to do.
   *
   * @returns names to be visited; folders that the thread could not do are pending again
   */
  exchange(pending: (Folder<T> | number)[]): { folder: Folder<T>; names: Bytes[] }[] {
    const left = this.#take(pending)
    if (!this.isBusy && !this.#isBroken && performance.now() - this.#startMs > ALONE_MS) this.#give(pending)
    return left
  }

  #give(pending: (Folder<T> | number)[]): void {
    const share = pending.slice(0, Math.min(pending.length / 4, MAX_SHARE))
    if (!share.length || !share.every(isPlain)) return
    pending.splice(0, share.length)
    this.#given = share
    try {
      this.#thread ??= this.#start()
      this.#thread.port.postMessage(share.map(({ reach }) => reach))
    } catch {
      this.#isBroken = true // no more threads are allowed: the walk goes on alone
    }
  }

  #take(pending: (Folder<T> | number)[]): { folder: Folder<T>; names: Bytes[] }[] {
    const message = this.#thread && receiveMessageOnPort(this.#thread.port)
    if (!message && !this.#isBroken) return []
    const tallies: (Tally | undefined)[] = message?.message ?? []
    const given = this.#given
    this.#given = []
    return given.flatMap((folder, index) => {
      const tally = tallies[index]
      if (tally) this.#ordinary.add(tally.bytes)
      else pending.push(folder)
      return tally ? [{ folder, names: tally.names }] : []
    })
  }

  #start(): { worker: Worker; port: MessagePort } {
    const { port1: port, port2 } = new MessageChannel()
    // As text, because before Node.js 22 a thread can load TypeScript only by way of a slow start.
    const worker = new Worker(`(${serve})(require('node:worker_threads').workerData, require('node:fs'))`, {
      eval: true,
      execArgv: [],
      env: {},
      workerData: { port: port2, except: this.#ordinary.except },
      transferList: [port2],
    })
    worker.unref()
    worker.on('error', () => {
      this.#isBroken = true
    })
    return { worker, port }
  }
}

/** Can the thread reach it by a path in ASCII that holds as long as the walk? */
function isPlain<T>(folder: Folder<T> | number): folder is Folder<T> {
  return typeof folder !== 'number' && folder.reach === folder.path && /^[\0-\x7f]*$/.test(folder.path)
}

/** What the thread runs; it can use nothing but its arguments. */
function serve(
  { port, except }: { port: MessagePort; except: RegExp },
  { lstatSync, readdirSync }: typeof fs,
): void {
  port.on('message', (reaches: Bytes[]) => {
    const tallies: (Tally | undefined)[] = []
    for (const reach of reaches) {
      try {
        const tally: Tally = { bytes: 0, names: [] }
        for (const name of readdirSync(reach, 'latin1')) {
          const isOdd = except.test(name) || /[\x80-\xff]/.test(name)
          const stats = isOdd ? undefined : lstatSync(`${reach}/${name}`, { throwIfNoEntry: false })
          if (stats?.isFile() && stats.nlink === 1) tally.bytes += Math.max(stats.size, stats.blocks * 512)
          else tally.names.push(name)
        }
        tallies.push(tally)
      } catch {
        tallies.push(undefined)
      }
    }
    port.postMessage(tallies)
  })
}
