import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { build, type Metafile, type Plugin } from 'esbuild'
import { jobNames } from '../../lib/quotas.ts'
import { readHelp, type Subcommand } from './help.ts'

/** Scripts that only a clone needs: the package brings its own units, and nobody edits its validators. */
const CLONE_ONLY = ['install.ts', 'schema.ts']

/** The subcommands of the package: every script of scripts/ but what only a clone needs. */
export function subcommands(project: string): string[] {
  return readdirSync(join(project, 'scripts'))
    .filter(name => name.endsWith('.ts') && !CLONE_ONLY.includes(name))
    .map(name => basename(name, '.ts'))
}

/**
 * Make the package's program: plain JavaScript, with what it reads besides.
 *
 * @param project folder of the project
 * @param out folder to write; afterwards it runs from wherever it is put
 * @returns what went in, for the list of licences, and the help of its subcommands
 */
export async function bundle(
  project: string,
  out: string,
): Promise<{ metafile: Metafile; commands: Subcommand[] }> {
  const seedTrainers = jobNames.map(job => `scripts/train/${job}`)
  const names = subcommands(project)
  const scripts = names.map(name => `scripts/${name}`)
  const metafile = await bundleModules(project, out, {
    'ransomeye-trainer': 'debian/ransomeye-trainer',
    ...Object.fromEntries(['tasks', ...scripts, ...seedTrainers].map(name => [name, name])),
  })
  const { name, version, description, license, type } = JSON.parse(
    readFileSync(join(project, 'package.json'), 'utf8'),
  )
  write(join(out, 'package.json'), { name, version, description, license, type })
  // It is read when it is needed.
  const css = 'lib/reports/html/page.css'
  mkdirSync(join(out, dirname(css)), { recursive: true })
  cpSync(join(project, css), join(out, css))
  // It is a program.
  const command = join(out, 'ransomeye-trainer.js')
  writeFileSync(command, `#!/usr/bin/node\n${readFileSync(command, 'utf8')}`)
  chmodSync(command, 0o755)
  // The help tells what each command is called here, since it is the bundle's own.
  const commands = readHelp(out, names)
  const summaries = Object.fromEntries(commands.map(({ name, summary }) => [name, summary]))
  write(join(out, 'commands.json'), { summaries, jobs: jobNames })
  return { metafile, commands }
}

/** Starts at every boot. On its own it is a quarter of the pieces, which costs a fifth less time than to share them. */
const ALONE = 'tasks'

/**
 * Bundle modules of the project: an ES module for each, and what they share in pieces, so that a start loads what it needs.
 *
 * @param entries module of the project by its name below `out`, both without an ending
 */
export async function bundleModules(
  project: string,
  out: string,
  { [ALONE]: alone, ...others }: Record<string, string>,
): Promise<Metafile> {
  const groups = alone === undefined ? [others] : [{ [ALONE]: alone }, others]
  const made = await Promise.all(groups.map(entries => bundleTogether(project, out, entries)))
  return {
    inputs: Object.assign({}, ...made.map(({ inputs }) => inputs)),
    outputs: Object.assign({}, ...made.map(({ outputs }) => outputs)),
  }
}

async function bundleTogether(
  project: string,
  out: string,
  entries: Record<string, string>,
): Promise<Metafile> {
  const { metafile } = await build({
    absWorkingDir: project,
    entryPoints: Object.fromEntries(Object.entries(entries).map(([to, from]) => [to, `${from}.ts`])),
    outdir: out,
    bundle: true,
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    format: 'esm',
    platform: 'node',
    target: 'node20.11',
    // A library's own ES module splits; what it has for require() often finds its parts only at run time.
    mainFields: ['module', 'main'],
    // Names stay: the stack trace of a defect has to tell something without the source.
    minify: false,
    legalComments: 'none',
    // Libraries that are no ES modules ask for Node.js's own by require().
    banner: {
      js: "import { createRequire as requireIn } from 'node:module'; const require = requireIn(import.meta.url);",
    },
    // A build may borrow the libraries of another folder; what is made must not show it.
    preserveSymlinks: true,
    metafile: true,
    logLevel: 'warning',
    plugins: [keepPlaces(project)],
  })
  return metafile
}

function write(path: string, value: unknown): void {
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)
}

/**
 * In the bundle a file's code stands in some piece, but believes that it stands where it was: `import.meta` gives the place
 * it would have below the bundle's folder. A `require` of a library, made for a late start, is one that is bundled.
 */
function keepPlaces(project: string): Plugin {
  return {
    name: 'keep-places',
    setup({ onLoad, onResolve }) {
      onResolve({ filter: /^bundle-place$/ }, () => ({ path: join(project, 'debian/build/place.ts') }))
      onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const name = relative(project, path)
        const text = readFileSync(path, 'utf8')
        if (
          name.startsWith('node_modules') ||
          name === 'debian/build/place.ts' ||
          !text.includes('import.meta')
        )
          return undefined
        const placed = text
          .replace(/^const require = createRequire\(import\.meta\.url\)$/m, '')
          .replaceAll(/\bimport\.meta\b(?!\.resolve)/g, 'placeInBundle')
        const place = `import { placeOf } from 'bundle-place'; const placeInBundle = placeOf(${JSON.stringify(name)});`
        return { contents: `${place}${placed}`, loader: 'ts' }
      })
    },
  }
}
