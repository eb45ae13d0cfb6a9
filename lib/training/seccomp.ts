/**
 * Makes the filter of system calls that a sandboxed training lives under: a classic BPF program, see seccomp(2), which
 * bwrap loads (`--seccomp FD`) just before the training's program begins. What a filter can tell apart is a call's number
 * and the plain numbers among its arguments, not what a pointer leads to.
 */

/** A call's number on x86-64 and on arm64; see arch/x86/entry/syscalls/syscall_64.tbl and asm-generic/unistd.h. */
type Call = readonly [x64: number, arm64: number]

/** Holds for a call if the lower 32 bits of an argument are one of `values`, or have any of `bits` and none of `unless`. */
type Condition = { argument: number } & (
  | { values: readonly number[] }
  | { bits: number | readonly [x64: number, arm64: number]; unless?: number }
)

/** One refusal: of calls for which every condition holds; without any of every such call. */
type Rule = { errno: number; calls: readonly Call[]; when?: Condition | readonly Condition[] }

/** For a call that there is on the other processor only: no call has this number. */
const NONE = 0xffff_ffff

// errno(3)
const EPERM = 1
const EINVAL = 22
const ENOTTY = 25
const ENOSYS = 38
const EOPNOTSUPP = 95

const IOCTL: Call = [16, 29]
const CLONE: Call = [56, 220]
const FCNTL: Call = [72, 25]
const PTRACE: Call = [101, 117]
const UNSHARE: Call = [272, 97]
const CLOSE_RANGE: Call = [436, 436]

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. */
const NEW_NAMESPACE = 0x7e02_0000
const CLONE_FS = 0x200
const CLONE_FILES = 0x400
const CLONE_THREAD = 0x1_0000
const CLOSE_RANGE_UNSHARE = 2
const O_DIRECT = [0x4000, 0x1_0000] as const
/** CLONE_NEWTIME; in clone(2) this bit is a part of the signal at the end. */
const NEW_TIME_NAMESPACE = 0x80

const rules: readonly Rule[] = [
  {
    // New mounts would hide files from the account, which walks the machine's own tree. A user namespace is what would
    // permit them.
    errno: EPERM,
    calls: [CLONE],
    when: { argument: 0, bits: NEW_NAMESPACE },
  },
  { errno: EPERM, calls: [UNSHARE], when: { argument: 0, bits: NEW_NAMESPACE | NEW_TIME_NAMESPACE } },
  // All threads of a process have the same descriptors and folders: one look is enough to count what they hold.
  { errno: EPERM, calls: [CLONE], when: { argument: 0, bits: CLONE_THREAD, unless: CLONE_FILES } },
  { errno: EPERM, calls: [CLONE], when: { argument: 0, bits: CLONE_THREAD, unless: CLONE_FS } },
  { errno: EPERM, calls: [UNSHARE], when: { argument: 0, bits: CLONE_FILES | CLONE_FS } },
  { errno: EPERM, calls: [CLOSE_RANGE], when: { argument: 2, bits: CLOSE_RANGE_UNSHARE } },
  // clone3 has its flags behind a pointer. C libraries fall back to clone.
  { errno: ENOSYS, calls: [[435, 435]] },
  {
    errno: EPERM,
    calls: [
      [308, 268], // setns
      [165, 40], // mount
      [166, 39], // umount2
      [155, 41], // pivot_root
      [428, 428], // open_tree
      [429, 429], // move_mount
      [430, 430], // fsopen
      [431, 431], // fsconfig
      [432, 432], // fsmount
      [433, 433], // fspick
      [442, 442], // mount_setattr
      [467, 467], // open_tree_attr
    ],
  },
  {
    // Keys belong to the user, not to the sandbox: they would outlive it, and others' could be used.
    errno: EPERM,
    calls: [
      [248, 217], // add_key
      [249, 218], // request_key
      [250, 219], // keyctl
    ],
  },
  {
    // A rule keeps a file that is deleted and closed on the disk, where nobody can see it.
    errno: ENOSYS,
    calls: [
      [444, 444], // landlock_create_ruleset
      [445, 445], // landlock_add_rule
      [446, 446], // landlock_restrict_self
    ],
  },
  // A handle opens what lies outside the folders that are shown, on the same filesystem.
  { errno: EPERM, calls: [[304, 265]] }, // open_by_handle_at
  {
    errno: EPERM,
    calls: [
      [321, 280], // bpf: programs and maps that outlive their maker
      [323, 282], // userfaultfd: holds up a process inside a system call for as long as it likes
      [179, 60], // quotactl
      [443, 443], // quotactl_fd
    ],
  },
  {
    // The sandbox's first process is bwrap's: it must neither be made to do anything nor be looked into. Its folder in
    // /proc is covered.
    errno: EPERM,
    calls: [PTRACE],
    when: { argument: 1, values: [1] },
  },
  {
    // It takes in the dead, and must not be made late.
    errno: EPERM,
    calls: [
      [144, 119], // sched_setscheduler
      [142, 118], // sched_setparam
      [314, 274], // sched_setattr
      [203, 122], // sched_setaffinity
    ],
    when: { argument: 0, values: [1] },
  },
  { errno: EPERM, calls: [[141, 140]], when: { argument: 1, values: [1] } }, // setpriority
  {
    errno: EPERM,
    calls: [
      [310, 270], // process_vm_readv
      [311, 271], // process_vm_writev
      [434, 434], // pidfd_open, without which nothing can be taken from it by pidfd_getfd
      [312, 272], // kcmp
    ],
    when: { argument: 0, values: [1] },
  },
  { errno: EPERM, calls: [[312, 272]], when: { argument: 1, values: [1] } }, // kcmp
  {
    // A filter does not see what is done through a ring.
    errno: ENOSYS,
    calls: [
      [425, 425], // io_uring_setup
      [426, 426], // io_uring_enter
      [427, 427], // io_uring_register
    ],
  },
  // One call goes through any number of pages, and hears no signal meanwhile; mincore writes as it goes.
  { errno: EPERM, calls: [[279, 239]] }, // move_pages
  { errno: ENOSYS, calls: [[27, 232]] }, // mincore
  // io_setup, without which there is no io_submit: that goes through a list of any length, and hears no signal meanwhile.
  { errno: ENOSYS, calls: [[206, 0]] },
  {
    // A file's project decides whose quota it is charged to; a flag of a folder decides that of what is made in it.
    errno: EPERM,
    calls: [IOCTL],
    when: {
      argument: 1,
      values: [
        0x401c_5820, // FS_IOC_FSSETXATTR
        0x4008_6602, // FS_IOC_SETFLAGS
        // A subvolume is another device to whoever walks the tree.
        0x5000_940e, // BTRFS_IOC_SUBVOL_CREATE
        0x5000_9418, // BTRFS_IOC_SUBVOL_CREATE_V2
        0x5000_9401, // BTRFS_IOC_SNAP_CREATE
        0x5000_9417, // BTRFS_IOC_SNAP_CREATE_V2
        0x4008_941a, // BTRFS_IOC_SUBVOL_SETFLAGS
      ],
    },
  },
  { errno: ENOSYS, calls: [[469, 469]] }, // file_setattr, which does the same
  {
    // The key of an encrypted model is gone after the next boot. Nothing can be made in a folder whose key is missing.
    errno: EOPNOTSUPP,
    calls: [IOCTL],
    when: {
      argument: 1,
      values: [
        0x800c_6613, // FS_IOC_SET_ENCRYPTION_POLICY
        0xc050_6617, // FS_IOC_ADD_ENCRYPTION_KEY
        0x4080_6685, // FS_IOC_ENABLE_VERITY
      ],
    },
  },
  {
    // Who opens a file that is leased waits for its holder: of a published model that would be its readers.
    errno: EPERM,
    calls: [FCNTL],
    when: { argument: 1, values: [1024, 1040] }, // F_SETLEASE, F_SETDELEG
  },
]

/**
 * Gigabytes in a millisecond, before anybody can look, or where nobody does. Without them every way of growing takes the time
 * that writing takes, and is seen: posix_fallocate(3) falls back to writing, and programs that clone fall back to copying.
 */
const bursts: readonly Rule[] = [
  { errno: EOPNOTSUPP, calls: [[285, 47]] }, // fallocate
  // setxattr, lsetxattr, fsetxattr, setxattrat: on btrfs what they store is in no file's size or blocks.
  {
    errno: EOPNOTSUPP,
    calls: [
      [188, 5],
      [189, 6],
      [190, 7],
      [463, 463],
    ],
  },
  // copy_file_range clones where the filesystem can. On btrfs a few blocks of a clone keep all of a file that is deleted.
  { errno: ENOSYS, calls: [[326, 285]] },
  {
    errno: EOPNOTSUPP,
    calls: [IOCTL],
    when: {
      argument: 1,
      values: [
        0x4004_9409, // FICLONE
        0x4020_940d, // FICLONERANGE
        0xc018_9436, // FIDEDUPERANGE
        // Written anew in pieces, a file keeps all that it had before for each.
        0x5000_9402, // BTRFS_IOC_DEFRAG
        0x4030_9410, // BTRFS_IOC_DEFRAG_RANGE
      ],
    },
  },
  {
    // A thread that is stopped in its end keeps its process from running another program, whose file nobody can see meanwhile.
    errno: EPERM,
    calls: [PTRACE],
    when: [
      { argument: 0, values: [0x4200, 0x4206] }, // PTRACE_SETOPTIONS, PTRACE_SEIZE
      { argument: 3, bits: 0x40 }, // PTRACE_O_TRACEEXIT
    ],
  },
  // One call that writes past the kernel's memory takes any number of pieces, and hears no signal meanwhile.
  { errno: EINVAL, calls: [[2, NONE]], when: { argument: 1, bits: O_DIRECT } }, // open
  { errno: EINVAL, calls: [[257, 56]], when: { argument: 2, bits: O_DIRECT } }, // openat
  {
    errno: EINVAL,
    calls: [FCNTL],
    when: [
      { argument: 1, values: [4] }, // F_SETFL
      { argument: 2, bits: O_DIRECT },
    ],
  },
  { errno: ENOSYS, calls: [[437, 437]] }, // openat2, which has its flags behind a pointer
  // They punch holes, as fallocate does. On btrfs what is left around a hole keeps what was in it.
  { errno: ENOSYS, calls: [[440, 440]] }, // process_madvise, whose process is behind a number
  { errno: EOPNOTSUPP, calls: [[28, 233]], when: { argument: 2, values: [9] } }, // madvise: MADV_REMOVE
  {
    errno: ENOTTY,
    calls: [IOCTL],
    when: {
      argument: 1,
      values: [
        0x4030_5828, // FS_IOC_RESVSP
        0x4030_582a, // FS_IOC_RESVSP64
        0x4030_5829, // FS_IOC_UNRESVSP
        0x4030_582b, // FS_IOC_UNRESVSP64
        0x4030_5839, // FS_IOC_ZERO_RANGE
        // XFS before Linux 5.17:
        0x4030_580a, // XFS_IOC_ALLOCSP
        0x4030_580b, // XFS_IOC_FREESP
        0x4030_5824, // XFS_IOC_ALLOCSP64
        0x4030_5825, // XFS_IOC_FREESP64
      ],
    },
  },
]

// linux/bpf_common.h and linux/seccomp.h
const LOAD_WORD = 0x20
const JUMP_IF_EQUAL = 0x15
const JUMP_IF_AT_LEAST = 0x35
const JUMP_IF_ANY_BIT = 0x45
const RETURN = 0x06
const RETURN_ERRNO = 0x0005_0000
const RETURN_ALLOW = 0x7fff_0000

/** Where struct seccomp_data has what a filter looks at. */
const NUMBER_AT = 0
const ARCHITECTURE_AT = 4
const lowerHalfAt = (argument: number) => 16 + 8 * argument

/** By Node's name of the processor: the kernel's own, and where a call's two numbers are. */
const architectures: Partial<Record<NodeJS.Architecture, { audit: number; column: 0 | 1 }>> = {
  x64: { audit: 0xc000_003e, column: 0 },
  arm64: { audit: 0xc000_00b7, column: 1 },
}
/** From here on are the calls of x32, which are those of x86-64 once more. */
const X32_CALLS = 0x4000_0000

type Instruction = [code: number, operand: number, ifTrue?: number, ifFalse?: number]

/**
 * The filter for a training.
 *
 * @param allowsBursts on a filesystem of its own, where the kernel bounds every way of growing
 * @returns undefined on a processor that has none: there `--disable-userns` and the mounts must do
 * @example const filter = seccompFilter({ allowsBursts: false })
 */
export function seccompFilter(
  { allowsBursts }: { allowsBursts: boolean },
  processor: NodeJS.Architecture = process.arch,
): Buffer | undefined {
  const architecture = architectures[processor]
  if (!architecture) return undefined
  const { audit, column } = architecture
  const program: Instruction[] = [
    [LOAD_WORD, ARCHITECTURE_AT],
    // A program for 32 bits, or one that makes their calls, would have other numbers: it has none at all.
    [JUMP_IF_EQUAL, audit, 1, 0],
    [RETURN, RETURN_ERRNO | ENOSYS],
    [LOAD_WORD, NUMBER_AT],
    [JUMP_IF_AT_LEAST, X32_CALLS, 0, 1],
    [RETURN, RETURN_ERRNO | ENOSYS],
    ...[...rules, ...(allowsBursts ? [] : bursts)].flatMap(rule => instructionsOf(rule, column)),
    [RETURN, RETURN_ALLOW],
  ]
  return Buffer.concat(program.map(encode))
}

/** The accumulator holds the call's number, before and after. */
function instructionsOf({ errno, calls, when = [] }: Rule, column: 0 | 1): Instruction[] {
  const refuse: Instruction = [RETURN, RETURN_ERRNO | errno]
  const conditions = [when].flat()
  const tested = conditions.reduceRight(
    (rest: Instruction[], it) => testOf(it, rest.length, column).concat(rest),
    [refuse],
  )
  const refusal: Instruction[] = conditions.length ? [...tested, [LOAD_WORD, NUMBER_AT]] : tested
  return calls.flatMap((call): Instruction[] => [
    [JUMP_IF_EQUAL, call[column], 0, refusal.length],
    ...refusal,
  ])
}

/** Go on behind these instructions if the condition holds, else `beyond` of those that follow. */
function testOf(condition: Condition, beyond: number, column: 0 | 1): Instruction[] {
  const load: Instruction = [LOAD_WORD, lowerHalfAt(condition.argument)]
  if ('values' in condition) {
    const { values } = condition
    const compare = (value: number, index: number): Instruction => {
      const left = values.length - 1 - index
      return [JUMP_IF_EQUAL, value, left, left ? 0 : beyond]
    }
    return [load, ...values.map(compare)]
  }
  const { bits, unless } = condition
  const mask = typeof bits === 'number' ? bits : bits[column]
  if (unless === undefined) return [load, [JUMP_IF_ANY_BIT, mask, 0, beyond]]
  return [load, [JUMP_IF_ANY_BIT, mask, 0, beyond + 1], [JUMP_IF_ANY_BIT, unless, beyond, 0]]
}

/** struct sock_filter; both processors are little-endian. */
function encode([code, operand, ifTrue = 0, ifFalse = 0]: Instruction): Buffer {
  const instruction = Buffer.alloc(8)
  instruction.writeUInt16LE(code, 0)
  instruction.writeUInt8(ifTrue, 2)
  instruction.writeUInt8(ifFalse, 3)
  instruction.writeUInt32LE(operand >>> 0, 4)
  return instruction
}
