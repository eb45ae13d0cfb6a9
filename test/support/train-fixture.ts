import { agentJob } from '../../scripts/train/agent.ts'
import { coreJob } from '../../scripts/train/core.ts'
import { dpiJob } from '../../scripts/train/dpi.ts'
import {
  type SeedJob,
  type SeedModel,
  type SeedRequest,
  trainSeedModel,
} from '../../scripts/train/seed-training.ts'

/** The three seed trainings on little data. */
export const smallJobs: SeedJob[] = [
  { ...coreJob, sources: 45 },
  { ...dpiJob, sources: 900 },
  { ...agentJob, sources: 140 },
]

export const [smallCore, smallDpi, smallAgent] = smallJobs as [SeedJob, SeedJob, SeedJob]

/** Train in `outputDir`. */
export function trainSmall(
  job: SeedJob,
  outputDir: string,
  request: Partial<SeedRequest> = {},
  print: (line: string) => void = () => {},
): Promise<SeedModel> {
  const defaults = { outputDir, maxDiskMb: 3, seed: 7, epochs: 4 }
  return trainSeedModel(job, { ...defaults, ...request }, print)
}
