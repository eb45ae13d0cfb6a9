import { chmodSync, cpSync, readdirSync, symlinkSync } from 'node:fs'
import { basename, dirname, join, relative, sep } from 'node:path'
import { type BuildOptions, build, type Plugin } from 'esbuild'
import { bundleModules, subcommands } from '../../debian/build/bundle.ts'
import { jobNames } from '../../lib/quotas.ts'
import { root } from './places.ts'
import { type Sandbox, sandbox } from './sandbox.ts'

/** Folders that the copy does without, or shares. */
const LEFT_OUT = ['.git', 'node_modules']

/** Packages that nearly every run loads; each becomes one file, because to look for its dozens takes longer than to read them. */
const PACKAGES = ['@bufbuild/protobuf/wire', 'globby', 'picomatch', 'prom-client', 'valibot', 'zx/core']

/**
 * Copy the project into a temporary folder, and put beside every .ts file what it is as JavaScript: that starts in a
 * seventh of the processor time, and the tests start a program more than a thousand times.
 */
export async function translateProject(): Promise<Sandbox> {
  const copy = await sandbox()
  chmodSync(copy.dir, 0o755) // other users run it too
  cpSync(root, copy.dir, { recursive: true, filter: path => !LEFT_OUT.includes(basename(path)) })
  symlinkSync(join(root, 'node_modules'), copy.path('node_modules'))
  const sources = readdirSync(copy.dir, { recursive: true, encoding: 'utf8' }).filter(
    name => name.endsWith('.ts') && !name.startsWith(`node_modules${sep}`),
  )
  const programs = [
    ...['tasks', 'test/support/publisher', ...jobNames.map(job => `scripts/train/${job}`)],
    ...subcommands(root).map(name => `scripts/${name}`),
  ]
  const fileOf = (name: string) => copy.path('packages', name.replaceAll('/', '-'))
  await Promise.all([
    build({
      ...common,
      entryPoints: sources.map(name => ({ in: name, out: moduleName(name.replace(/\.ts$/, ''), programs) })),
      outbase: root,
      outdir: copy.dir,
      sourcemap: true,
      treeShaking: false,
      plugins: [keepImports(name => PACKAGES.includes(name) && `${fileOf(name)}.js`, programs)],
    }),
    build({
      ...common,
      entryPoints: PACKAGES.map(name => ({ in: name, out: fileOf(name) })),
      outdir: copy.path('packages'),
      banner: {
        js: `import * as module from 'node:module'; const require = module.createRequire(import.meta.url)`,
      },
    }),
  ])
  // Bundle every program as for the package.
  await bundleModules(root, copy.dir, Object.fromEntries(programs.map(name => [name, name])))
  return copy
}

const common = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  logLevel: 'warning',
  platform: 'node',
  target: 'node20.11',
} satisfies BuildOptions

/** A program leaves its name to its bundle; a test that imports it gets a module that shares errors and state with it. */
function moduleName(name: string, programs: string[]): string {
  return programs.includes(name) ? `${name}.module` : name
}

/** Every import stays one: of the JavaScript beside it, or of a package, which may have a file elsewhere. */
function keepImports(fileOf: (name: string) => string | false, programs: string[]): Plugin {
  return {
    name: 'keep-imports',
    setup({ onResolve }) {
      onResolve({ filter: /./ }, ({ importer, kind, path }) => {
        if (kind === 'entry-point') return undefined
        if (path.startsWith('.')) {
          const from = dirname(importer)
          const name = relative(root, join(from, path.replace(/\.ts$/, '')))
          const file = relative(from, join(root, `${moduleName(name, programs)}.js`))
          return { external: true, path: file.startsWith('.') ? file : `./${file}` }
        }
        return { external: true, path: fileOf(path) || path }
      })
    },
  }
}
