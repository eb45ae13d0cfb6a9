import { setTimeout as delay } from 'node:timers/promises'
import { test as register, type Test } from 'uvu'
import { isSweep, testLimitMs } from './places.ts'

/** uvu's `test`, which knows whether this run has its tests. */
export type OurTest = Test & { isHere: boolean }

/** How many tests of this file `npm test` leaves to the sweep; the runner counts them aloud. */
export let leftToSweep = 0

/** The names of those that have failed so far in this process. */
export const failedTests: string[] = []

/** The tests to which this process keeps, if it keeps to some. */
const only: string[] | undefined = process.env.RANSOMEYE_ONLY && JSON.parse(process.env.RANSOMEYE_ONLY)

/** uvu's `test`, in which a test that takes longer than a minute has failed, and those after it run; not in a sweep. */
export const test: OurTest = testOf(!isSweep)

/** A test of which `npm test` sees a sample of the cases, by `isSweep`, and the sweep all of them. */
export const sampled: OurTest = testOf(true)

/** A test that only the sweep has: `npm test` has a cheaper one of the same subject. */
export const inSweep: OurTest = testOf(isSweep)

/**
 * Share a matrix between `npm test` and the sweep: of the tests of a loop's body the first is here for the first thing that
 * the loop goes over, the second for the second, and so on in turn; for the other things they are in the sweep. So every
 * test and every thing is seen at each change.
 *
 * @param turn the number of the thing, of `turns` things
 * @param here what those are whose turn it is: `test`, or `sampled`
 * @example for (const [turn, user] of users.entries()) { const test = inTurn(turn, users.length) … }
 */
export function inTurn(turn: number, turns: number, here = test): OurTest {
  let count = 0
  const define = (name: string, body: Body) => (count++ % turns === turn % turns ? here : inSweep)(name, body)
  return Object.assign(define, register, { isHere: true })
}

/** Register tests with a limit of time, in a run that has them. */
function testOf(isHere: boolean): OurTest {
  const define = (name: string, body: Body) => {
    if (only && !only.includes(name)) return
    if (isHere) register(name, withLimit(name, body))
    else if (!isSweep) leftToSweep++
  }
  return Object.assign(define, register, { isHere })
}

function withLimit(name: string, body: Body): Body {
  return async context => {
    const ended = new AbortController()
    const late = delay(testLimitMs, undefined, { signal: ended.signal }).then(
      () => {
        const fault = `took longer than ${testLimitMs / 1000} s`
        console.error(`"${name}" ${fault}`) // at once: the file may never come to its end
        throw new Error(fault)
      },
      () => {},
    )
    try {
      await Promise.race([late, body(context)])
    } catch (error) {
      failedTests.push(name)
      throw error
    } finally {
      ended.abort()
    }
  }
}

type Body = Parameters<Test>[1]
