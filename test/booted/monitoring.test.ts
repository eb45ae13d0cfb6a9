import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { jobNames } from '../../lib/quotas.ts'
import { newMachine, withBoot } from '../support/booted-machine.ts'
import { debianImage } from '../support/debian-image.ts'
import { builtPackage, installPackage, publishes, setTraining, untilDone } from '../support/package-rig.ts'
import { root } from '../support/places.ts'
import { until } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

withBoot('node_exporter has the figures after the commands of the page', async () => {
  const built = await builtPackage()
  await using machine = await newMachine(await debianImage(13, 'prometheus-node-exporter', 'curl'))
  setTraining(machine, publishes)
  installPackage(machine, built.deb, '--option', 'Dpkg::Options::=--force-confold')
  await machine.powerOn()
  await untilDone(machine)

  const page = readFileSync(join(root, 'docs/appliance.md'), 'utf8')
  const commands = /^## Monitoring.*?```sh\n(.*?)```/ms
    .exec(page)![1]!
    .split('\n')
    .filter(line => /^(usermod|ln|systemctl) /.test(line))
  for (const command of commands) machine.must('sh', '-c', command)
  const figures = await until('the exporter answers', () => {
    const { stdout } = machine.run('sh', '-c', 'curl -s localhost:9100/metrics | grep ransomeye_trainer_')
    return stdout
  })

  assert.is(commands.length, 3)
  for (const job of jobNames)
    assert.match(figures, new RegExp(`^ransomeye_trainer_model_bytes\\{model="${job}"\\} [1-9]`, 'm'))
  assert.match(figures, /^ransomeye_trainer_last_exit_code 0$/m)
  const errors = machine.must('sh', '-c', 'curl -s localhost:9100/metrics | grep ^node_textfile_scrape_error')
  assert.is(errors, 'node_textfile_scrape_error 0\n')
})

test.run()
