import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { hostname } from 'node:os'
import { promisify } from 'node:util'
import { listProcesses, readProc, signalProcess } from '../../lib/system/processes.ts'
import { sandbox, until } from './sandbox.ts'

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const programs = ['munged', 'slurmctld', 'slurmd', 'sbatch', 'squeue', 'scancel', 'scontrol', 'sinfo']

/** Why no cluster can be started here, for the name of a skip; empty if one can. */
export function clusterLacks(): string {
  if (process.getuid?.() !== 0) return 'needs root'
  const isThere = (program: string) => PATH.split(':').some(folder => existsSync(`${folder}/${program}`))
  const missing = programs.filter(program => !isThere(program))
  return missing.length
    ? `needs ${missing.join(', ')} of Debian's slurmctld, slurmd, slurm-client and munge`
    : ''
}

export type Cluster = AsyncDisposable & {
  /** The environment that a client of it needs. */
  env: { SLURM_CONF: string }
  /** Run one of Slurm's commands and give what it prints. */
  run: (...argv: string[]) => Promise<string>
  /** Kill -9 a node's daemon; what it started goes on. */
  killNode: (node: string) => void
  startNode: (node: string) => void
  /** A controller that is stopped answers nobody, and goes on where it was. */
  signalController: (signal: 'SIGSTOP' | 'SIGCONT') => void
  /** The job of this name that is in the queue. */
  jobNamed: (name: string) => Promise<string | undefined>
}

type Settings = {
  nodes: number
  /** For how long an ended job is known, in seconds. */
  minJobAge?: number
}

/**
 * A real Slurm on this machine: its own folder, ports and munge, and nothing of the system's. Its daemons die with this
 * process.
 *
 * @example await using cluster = await startCluster({ nodes: 3 }); await cluster.run('sinfo')
 */
export async function startCluster({ nodes, minJobAge = 300 }: Settings): Promise<Cluster> {
  const box = await sandbox()
  const names = Array.from({ length: nodes }, (_, index) => `n${index + 1}`)
  const [controllerPort, ...ports] = await freePorts(nodes + 1)
  chmodSync(box.dir, 0o755) // munged takes no socket that others cannot reach
  for (const name of ['state', 'munge', 'tmp', ...names]) mkdirSync(box.path(name), { mode: 0o755 })
  writeFileSync(box.path('munge', 'key'), randomBytes(1024), { mode: 0o400 })
  const conf = box.path('slurm.conf')
  writeFileSync(conf, configuration(box.dir, controllerPort!, minJobAge, names, ports))
  writeFileSync(box.path('gres.conf'), 'Name=trainer Count=1\n')

  const env = { PATH, SLURM_CONF: conf }
  const daemons = new Map<string, ChildProcess>()
  const start = (name: string, program: string, ...args: string[]) => {
    // A session of its own: Ctrl-C at a terminal is not for the cluster.
    const argv = ['setpriv', '--pdeathsig', 'KILL', '--', 'setsid', program, ...args]
    daemons.set(name, spawn(argv[0]!, argv.slice(1), { env, stdio: 'ignore' }))
  }
  const startNode = (node: string) => start(node, 'slurmd', '-D', '-N', node)
  const run = async (...argv: string[]) => {
    const { stdout } = await promisify(execFile)(argv[0]!, argv.slice(1), { env, timeout: 60_000 })
    return stdout.trim()
  }
  const end = async () => {
    for (const daemon of daemons.values()) daemon.kill('SIGKILL')
    // Jobs belong to no daemon that is left: they are known by the folder in their environment or command.
    await until('no process of the cluster is left', () => {
      const left = processesOf(box.dir)
      for (const pid of left) signalProcess(pid, 'SIGKILL')
      return left.length === 0
    })
    await box[Symbol.asyncDispose]()
  }
  try {
    const socket = box.path('munge', 'socket')
    const log = box.path('munge', 'log')
    const seed = box.path('munge', 'seed')
    const pid = box.path('munge', 'pid')
    const key = box.path('munge', 'key')
    start(
      'munged',
      'munged',
      ...['--foreground', `--key-file=${key}`, `--socket=${socket}`, `--log-file=${log}`],
      ...[`--seed-file=${seed}`, `--pid-file=${pid}`],
    )
    await until('munged listens', () => existsSync(socket))
    start('slurmctld', 'slurmctld', '-D')
    for (const node of names) startNode(node)
    await until('every node is idle', async () => {
      const states = await run('sinfo', '-h', '-N', '-o', '%t').catch(() => '')
      return states.split('\n').filter(state => state === 'idle').length === nodes
    })
  } catch (error) {
    await end()
    throw error
  }
  return {
    env: { SLURM_CONF: conf },
    run,
    killNode: node => daemons.get(node)!.kill('SIGKILL'),
    startNode,
    signalController: signal => daemons.get('slurmctld')!.kill(signal),
    jobNamed: async name => (await run('squeue', '-h', '-o', '%i', `--name=${name}`)) || undefined,
    [Symbol.asyncDispose]: end,
  }
}

/** Everything is root's and on this machine: it claims any number of processors, and one trainer a node. */
function configuration(
  dir: string,
  controllerPort: number,
  minJobAge: number,
  names: string[],
  ports: number[],
): string {
  const host = hostname().split('.')[0]
  const nodes = names.map(
    (name, index) =>
      `NodeName=${name} NodeHostname=${host} NodeAddr=127.0.0.1 Port=${ports[index]} CPUs=2 RealMemory=4000 TmpDisk=20000 Gres=trainer:1`,
  )
  return `ClusterName=trainer
SlurmctldHost=${host}(127.0.0.1)
SlurmctldPort=${controllerPort}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=${dir}/munge/socket
CredType=cred/munge
StateSaveLocation=${dir}/state
SlurmctldPidFile=${dir}/slurmctld.pid
SlurmctldLogFile=${dir}/slurmctld.log
SlurmdPidFile=${dir}/%n/pid
SlurmdSpoolDir=${dir}/%n
SlurmdLogFile=${dir}/%n/log
SlurmdTimeout=5
SlurmctldTimeout=30
InactiveLimit=0
KillWait=30
MinJobAge=${minJobAge}
ReturnToService=2
MessageTimeout=3
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
TmpFS=${dir}/tmp
GresTypes=trainer
${nodes.join('\n')}
PartitionName=train Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=UNLIMITED State=UP
`
}

/** Ports that nobody listens on now. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map(server => new Promise(resolve => server.once('listening', resolve))))
  const ports = servers.map(server => (server.address() as { port: number }).port)
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

function processesOf(dir: string): number[] {
  return listProcesses()
    .filter(({ pid, state }) => pid !== process.pid && state !== 'Z')
    .filter(({ pid }) => {
      const text = `${readProc(`${pid}/cmdline`)}\0${readProc(`${pid}/environ`)}`
      return text.includes(`SLURM_CONF=${dir}/`) || text.includes(`${dir}/`)
    })
    .map(({ pid }) => pid)
}
