import { setTimeout as delay } from 'node:timers/promises'
import { test as register, type Test } from 'uvu'
import { testLimitMs } from './places.ts'

/** uvu's `test`, in which a test that takes longer than a minute has failed, and those after it run. */
export const test: Test = Object.assign((name: string, body: Body) => {
  register(name, async context => {
    const ended = new AbortController()
    const late = delay(testLimitMs, undefined, { signal: ended.signal }).then(
      () => Promise.reject(new Error(`took longer than ${testLimitMs / 1000} s`)),
      () => {},
    )
    try {
      await Promise.race([late, body(context)])
    } finally {
      ended.abort()
    }
  })
}, register)

type Body = Parameters<Test>[1]
