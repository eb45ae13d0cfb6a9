/** Kill this process when it has started its program number KILL_AT_PROGRAM, counting from 1. Load it by `node --import`. */
import type { ChildProcess } from 'node:child_process'
import { subscribe } from 'node:diagnostics_channel'

let left = Number(process.env.KILL_AT_PROGRAM)

subscribe('child_process', message => {
  const { process: program } = message as { process: ChildProcess }
  program.once('spawn', () => {
    if (--left === 0) process.kill(process.pid, 'SIGKILL')
  })
})
