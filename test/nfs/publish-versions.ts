/** Publish one version of a model with external data after the other: node --import tsx test/nfs/publish-versions.ts JOBDIR FROM TO */
import { trainAndPublish } from '../support/publishing.ts'
import { versionOf } from '../support/versions.ts'

const [jobDir, from, to] = process.argv.slice(2) as [string, string, string]
for (let version = Number(from); version <= Number(to); version++) {
  const { model, dataName, data } = versionOf(version)
  await trainAndPublish(jobDir, { 'core.onnx': model, [dataName]: data })
}
