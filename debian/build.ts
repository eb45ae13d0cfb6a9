/** Make what the package holds, below debian/built: node --import tsx debian/build.ts (debian/rules does). */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { renderUnits } from '../lib/machine/units.ts'
import { mountUnit } from '../lib/machine/volume/unit.ts'
import { jobNames } from '../lib/quotas.ts'
import { SYSTEM_MODELS_DIR } from '../lib/settings/folders.ts'
import { imageOf, layout } from '../lib/settings/layout.ts'
import { root as project } from '../lib/system/start-command.ts'
import { schemaFiles } from '../scripts/schema.ts'
import { bundle } from './build/bundle.ts'
import { completionOf } from './build/help.ts'
import { copyrightOf } from './build/licences.ts'
import { asInstalled, commandPage, filePage, roffOf, sectionOf, withoutAbsentLinks } from './build/manual.ts'

const PACKAGE = 'ransomeye-trainer'
/** Where the package puts the program. */
const HOME = `/usr/lib/${PACKAGE}`
/** How often the timer retrains, once somebody enables it. */
const RETRAIN = '7d'
/** Debian 13 has 257. An older one warns of the growing delays, and keeps the first. */
const SYSTEMD_VERSION = 257

const built = join(project, 'debian/built')
const read = (name: string) => readFileSync(join(project, name), 'utf8')
const write = (name: string, text: string, mode = 0o644) => {
  mkdirSync(dirname(join(built, name)), { recursive: true })
  writeFileSync(join(built, name), text, { mode })
}

rmSync(built, { recursive: true, force: true })
const out = join(built, 'program')
const { metafile, commands } = await bundle(project, out)
write('copyright', copyrightOf(project, metafile))
write('completion', completionOf(commands, jobNames))

const quotas = JSON.parse(read('quotas.json'))
quotas.$schema = `/usr/share/${PACKAGE}/quotas.schema.json`
for (const job of jobNames) quotas.jobs[job].train = ['node', `${HOME}/scripts/train/${job}.js`]
const settings = JSON.stringify(quotas, null, 2).replaceAll(/\[\n\s+("node"),\n\s+(".*")\n\s+\]/g, '[$1, $2]')
write('quotas.json', `${settings}\n`)

const { version } = JSON.parse(read('package.json'))
const [, released] = /\((.*?)\)/.exec(read('debian/changelog'))!
if (released !== version) throw new Error(`debian/changelog is of ${released}, package.json of ${version}`)
const date = new Date(1000 * Number(process.env.SOURCE_DATE_EPOCH ?? 0)).toISOString().slice(0, 10)
const page = { version, date }
const life = sectionOf(read('docs/appliance.md'), 'The package')
write(
  `${PACKAGE}.1`,
  commandPage(
    { ...page, name: PACKAGE, section: 1, title: "train RansomEye's models inside disk quotas" },
    commands,
    read('README.md'),
    life,
  ),
)
write(
  `${PACKAGE}-quotas.5`,
  filePage(
    { ...page, name: `${PACKAGE}-quotas`, section: 5, title: 'quotas and trainings of ransomeye-trainer' },
    asInstalled(read('docs/quotas.md')),
    `.SH FILES\n/etc/${PACKAGE}/quotas.json\n.SH EXAMPLE\n${roffOf(`What the package brings:\n\n\`\`\`json\n${settings}\n\`\`\``)}`,
  ),
)

/** They tell of a clone too, and of its files. */
const unchanged = ['appliance.md', 'architecture.md', 'benchmarks.md']
for (const name of readdirSync(join(project, 'docs')).filter(it => it.endsWith('.md'))) {
  const text = withoutAbsentLinks(read(`docs/${name}`))
  write(`docs/${name}`, unchanged.includes(name) ? text : asInstalled(text))
}
write('README.md', withoutAbsentLinks(read('README.md')))
// Beside README debhelper would take it for the package's own.
write('docs/CHANGELOG.md', read('CHANGELOG.md').replaceAll('](docs/', ']('))

const command = [`/usr/bin/${PACKAGE}`, 'run', '--max-wait', '10m']
const units = renderUnits({ command, modelsDir: SYSTEM_MODELS_DIR, systemdVersion: SYSTEMD_VERSION }, RETRAIN)
const mounts = jobNames.map(job =>
  mountUnit(imageOf(SYSTEM_MODELS_DIR, job).image, layout(SYSTEM_MODELS_DIR, job).jobDir),
)
for (const { name, text } of [...units, ...mounts]) write(`units/${name}`, text)

for (const name of schemaFiles) cpSync(join(project, name), join(built, basename(name)))
