import * as assert from 'uvu/assert'
import { seccompFilter } from '../../lib/training/seccomp.ts'
import { test } from '../support/test.ts'

const AUDIT = { x64: 0xc000_003e, arm64: 0xc000_00b7, ia32: 0x4000_0003 }
const ALLOWED = 0

/** Run a filter as the kernel does, with the instructions that ours have; @returns the errno, or ALLOWED */
function decide(filter: Buffer, audit: number, call: number, args: number[] = []): number {
  const data = Buffer.alloc(64)
  data.writeUInt32LE(call >>> 0, 0)
  data.writeUInt32LE(audit, 4)
  for (const [index, value] of args.entries()) data.writeBigUInt64LE(BigInt(value), 16 + 8 * index)
  let accumulator = 0
  for (let at = 0; ; at += 8) {
    const operand = filter.readUInt32LE(at + 4)
    const jump = (isTrue: boolean) => {
      at += 8 * filter.readUInt8(at + (isTrue ? 2 : 3))
    }
    switch (filter.readUInt16LE(at)) {
      case 0x20:
        accumulator = data.readUInt32LE(operand)
        break
      case 0x15:
        jump(accumulator === operand)
        break
      case 0x35:
        jump(accumulator >= operand)
        break
      case 0x45:
        jump((accumulator & operand) !== 0)
        break
      case 0x06:
        return operand === 0x7fff_0000 ? ALLOWED : operand & 0xffff
      default:
        throw new Error(`no instruction of ours at ${at / 8}`)
    }
  }
}

const pidfdOpen = 434
const closeRange = 436
const calls = {
  x64: {
    read: 0,
    ioctl: 16,
    clone: 56,
    ptrace: 101,
    mount: 165,
    unshare: 272,
    fallocate: 285,
    ioSetup: 206,
    setns: 308,
    kcmp: 312,
    openat: 257,
    fcntl: 72,
    direct: 0x4000,
    folder: 0x1_0000,
  },
  arm64: {
    read: 63,
    ioctl: 29,
    clone: 220,
    ptrace: 117,
    mount: 40,
    unshare: 97,
    fallocate: 47,
    ioSetup: 0,
    setns: 268,
    kcmp: 272,
    openat: 56,
    fcntl: 25,
    direct: 0x1_0000,
    folder: 0x4000,
  },
}

for (const processor of ['x64', 'arm64'] as const) {
  const { read, ioctl, clone, ptrace, mount, unshare, fallocate, ioSetup, setns, kcmp } = calls[processor]
  const { openat, fcntl, direct, folder } = calls[processor]
  const audit = AUDIT[processor]
  const watched = seccompFilter({ allowsBursts: false }, processor)!
  const capped = seccompFilter({ allowsBursts: true }, processor)!

  test(`the filter for ${processor} refuses what grows at once, but not where the kernel bounds it`, () => {
    assert.is(decide(watched, audit, fallocate, [3, 1]), 95)
    for (const request of [0x4030_582a, 0x4030_5829, 0x4030_582b])
      assert.is(decide(watched, audit, ioctl, [3, request]), 25)
    assert.is(decide(watched, audit, ioctl, [3, 0x4004_9409]), 95)
    assert.is(decide(watched, audit, 425), 38)

    assert.is(decide(capped, audit, fallocate, [3, 1]), ALLOWED)
    assert.is(decide(capped, audit, ioctl, [3, 0x4030_582a]), ALLOWED)
    assert.is(decide(capped, audit, 425), 38)
  })

  test(`the filter for ${processor} refuses what no signal ends`, () => {
    for (const filter of [watched, capped]) assert.is(decide(filter, audit, ioSetup, [128]), 38)
    const AT_FDCWD = 0xffff_ff9c
    const GETFL = 3
    const SETFL = 4
    assert.is(decide(watched, audit, openat, [AT_FDCWD, 0, direct | 0x42]), 22)
    assert.is(decide(watched, audit, openat, [AT_FDCWD, 0, folder]), ALLOWED)
    assert.is(decide(watched, audit, fcntl, [3, SETFL, direct | 0x400]), 22)
    assert.is(decide(watched, audit, fcntl, [3, SETFL, 0x400]), ALLOWED)
    assert.is(decide(watched, audit, fcntl, [3, GETFL, direct]), ALLOWED)
    assert.is(decide(watched, audit, 437, [AT_FDCWD]), 38, 'openat2')
    if (processor === 'x64') assert.is(decide(watched, audit, 2, [0, direct | 2]), 22, 'open')

    assert.is(decide(capped, audit, openat, [AT_FDCWD, 0, direct]), ALLOWED)
    assert.is(decide(capped, audit, 437, [AT_FDCWD]), ALLOWED)
  })

  test(`the filter for ${processor} lets no tracer stop a thread in its end, where it hides a file`, () => {
    const EXITKILL = 0x10_0000
    const TRACEEXIT = 0x40
    for (const request of [0x4200, 0x4206]) {
      assert.is(decide(watched, audit, ptrace, [request, 17, 0, TRACEEXIT | EXITKILL]), 1)
      assert.is(decide(watched, audit, ptrace, [request, 17, 0, EXITKILL]), ALLOWED)
    }
    const POKEDATA = 5
    assert.is(decide(watched, audit, ptrace, [POKEDATA, 17, 0, 0x41]), ALLOWED)
  })

  test(`the filter for ${processor} refuses namespaces and mounts, and threads and processes not`, () => {
    for (const filter of [watched, capped]) {
      assert.is(decide(filter, audit, clone, [0x1000_0011]), 1)
      assert.is(decide(filter, audit, clone, [0x7e02_0011]), 1)
      assert.is(decide(filter, audit, clone, [0x003d_0f00]), ALLOWED, 'a thread')
      assert.is(decide(filter, audit, clone, [0x0120_0011]), ALLOWED, 'fork')
      assert.is(decide(filter, audit, unshare, [0x80]), 1, 'a time namespace')
      assert.is(decide(filter, audit, unshare, [0x4_0000]), ALLOWED, 'CLONE_SYSVSEM')
      for (const call of [mount, setns, 428, 429, 430, 442]) assert.is(decide(filter, audit, call), 1)
      assert.is(decide(filter, audit, 435), 38, 'clone3')
    }
  })

  test(`the filter for ${processor} lets no thread have descriptors or folders of its own`, () => {
    for (const filter of [watched, capped]) {
      for (const lacking of [0x200, 0x400, 0x600])
        assert.is(decide(filter, audit, clone, [0x003d_0f00 & ~lacking]), 1, `a thread without ${lacking}`)
      assert.is(decide(filter, audit, clone, [0x411]), ALLOWED, 'a process that shares descriptors')
      for (const flags of [0x200, 0x400]) assert.is(decide(filter, audit, unshare, [flags]), 1)
      assert.is(decide(filter, audit, closeRange, [3, 9, 2]), 1)
      assert.is(decide(filter, audit, closeRange, [3, 9, 4]), ALLOWED, 'CLOSE_RANGE_CLOEXEC')
    }
  })

  test(`the filter for ${processor} keeps the first process from being traced and compared, and no other`, () => {
    assert.is(decide(watched, audit, ptrace, [16, 1]), 1)
    assert.is(decide(watched, audit, ptrace, [16, 17]), ALLOWED)
    assert.is(decide(watched, audit, pidfdOpen, [1]), 1)
    assert.is(decide(watched, audit, pidfdOpen, [17]), ALLOWED)
    for (const pids of [
      [1, 17],
      [17, 1],
    ])
      assert.is(decide(watched, audit, kcmp, pids), 1)
    assert.is(decide(watched, audit, kcmp, [17, 18, 1]), ALLOWED)
  })

  test(`the filter for ${processor} allows ordinary calls, and none of 32 bits`, () => {
    assert.is(decide(watched, audit, read), ALLOWED)
    assert.is(decide(watched, audit, ioctl, [3, 0x5401]), ALLOWED)
    assert.is(decide(watched, AUDIT.ia32, 3), 38)
    assert.is(decide(watched, audit, 0x4000_0000 + read), 38, 'x32')
  })
}

test('there is no filter for a processor whose calls are not known', () => {
  assert.is(seccompFilter({ allowsBursts: false }, 'riscv64'), undefined)
})

test.run()
