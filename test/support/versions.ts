import { onnxModel } from './onnx-fixture.ts'

const padding = 'x'.repeat(4 * 2 ** 20)

/** Version `version` of a model of 4 MiB with external data: recognisable in every byte. */
export function versionOf(version: number): { model: Buffer; dataName: string; data: Buffer } {
  const dataName = `weights-${version}.bin`
  const model = onnxModel({ producer: `${version} ${padding}`, external: [{ location: dataName }] })
  return { model, dataName, data: Buffer.alloc(2 ** 20, version) }
}

/** The version of a model that has been read, if it and its external data are whole; else undefined. */
export function isWhole(model: Buffer, readData: (name: string) => Buffer): number | undefined {
  const version = Number(/(\d+) x/.exec(model.subarray(0, 100).toString('latin1'))?.[1])
  if (Number.isNaN(version)) return undefined
  const expected = versionOf(version)
  return model.equals(expected.model) && readData(expected.dataName).equals(expected.data)
    ? version
    : undefined
}
