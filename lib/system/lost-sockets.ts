import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** The kernel looks for them in a thread of its own. */
const LOOK_MS = 20

let count = 0

/**
 * Have the kernel free sockets that nobody holds but they each other, in their own queues, with the files that are on their
 * way there. It looks for them when any UNIX socket of the machine is closed; see net/unix/garbage.c of Linux.
 */
export async function freeLostSockets(): Promise<void> {
  const server = createServer().listen(`\0ransomeye-trainer-${process.pid}-${count++}`)
  try {
    await once(server, 'listening')
  } catch {
    return // without a socket of ours it waits for somebody else's
  }
  server.close()
  await delay(LOOK_MS)
}
