/** Build the package into dist/: npm run deb, on Debian with the packages of Build-Depends in debian/control. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { TrainerError } from '../lib/errors.ts'
import { type Program, readOptions } from '../lib/settings/options.ts'
import { print, runScript } from '../lib/settings/script.ts'
import { root as project } from '../lib/system/start-command.ts'

const options = {
  out: { type: 'string', value: 'DIR', help: 'the folder for the package (default: dist)' },
} as const

const program: Program<typeof options> = {
  name: 'debian/deb.ts',
  summary: 'Build the Debian package.',
  options,
  example: '--out /tmp',
}

/** Files that a build does not need, or makes. */
const LEFT_OUT = ['.git', 'node_modules', 'dist', 'built', '.debhelper']

process.exitCode = await runScript(async () => {
  const read = readOptions(process.argv.slice(2), program)
  print(typeof read === 'string' ? read : buildPackage(resolve(read.values.out ?? join(project, 'dist'))))
  return 0
})

/**
 * Build in a copy, because dpkg-buildpackage writes into the folder above and beside the sources.
 *
 * @throws {TrainerError} `storage` if it fails; what it said is on stderr
 */
function buildPackage(out: string): string {
  const above = mkdtempSync(join(tmpdir(), 'ransomeye-deb-'))
  try {
    const copy = join(above, 'ransomeye-trainer')
    cpSync(project, copy, {
      recursive: true,
      filter: path => path === project || !LEFT_OUT.includes(basename(path)),
    })
    symlinkSync(join(project, 'node_modules'), join(copy, 'node_modules'))
    const { status, error } = spawnSync('dpkg-buildpackage', ['--build=binary', '--no-sign'], {
      cwd: copy,
      stdio: ['ignore', 2, 2],
    })
    if (status !== 0) {
      const remedy = 'install what Build-Depends of debian/control names'
      throw new TrainerError('storage', `dpkg-buildpackage failed (${error?.message ?? status}); ${remedy}`)
    }
    mkdirSync(out, { recursive: true })
    const files = readdirSync(above).filter(name => /\.(deb|buildinfo|changes)$/.test(name))
    for (const name of files) cpSync(join(above, name), join(out, name))
    return files.map(name => join(out, name)).join('\n')
  } finally {
    rmSync(above, { recursive: true, force: true })
  }
}
