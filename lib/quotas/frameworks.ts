/** What a job's settings name of its checkpoints: globs relative to the output folder, see docs/trainers.md. */
export type CheckpointGlobs = { prune: string[]; keepGlobs: string[] }

/**
 * The checkpoints of common frameworks, by the names that they give by default. Which file names the newest or best one
 * is known without a preset, as are the names of what is half-written: see lib/storage/pointers.ts and naming.ts there.
 */
const presets = {
  // transformers.Trainer: output_dir/checkpoint-500, and run-N/checkpoint-500 of a search.
  huggingface: { prune: ['**/checkpoint-[0-9]*/'], keepGlobs: [] },
  // ModelCheckpoint: epoch=3-step=400.ckpt, last.ckpt beside it; a sharded one is a folder.
  lightning: { prune: ['**/*.ckpt'], keepGlobs: ['**/last*.ckpt'] },
  // ModelCheckpoint with a number in its path; BackupAndRestore's backup is what it resumes from.
  keras: {
    prune: ['**/*[0-9]*.keras', '**/*[0-9]*.weights.h5', '**/*[0-9]*.h5'],
    keepGlobs: ['**/best*', '**/latest.weights.h5', '**/training_metadata.json'],
  },
  // tf.train.CheckpointManager: ckpt-12.index, ckpt-12.data-00000-of-00001.
  tensorflow: { prune: ['**/ckpt-[0-9]*', '**/model.ckpt-[0-9]*', '**/cp-[0-9]*'], keepGlobs: [] },
  // runs/detect/train/weights/epoch10.pt, with save_period; it goes on from last.pt.
  ultralytics: { prune: ['**/weights/epoch*.pt'], keepGlobs: ['**/weights/last.pt', '**/weights/best.pt'] },
  // save_checkpoint(): global_step100/, named by the file latest.
  deepspeed: { prune: ['**/global_step[0-9]*/'], keepGlobs: [] },
  // iter_0000100/, named by latest_checkpointed_iteration.txt.
  megatron: { prune: ['**/iter_[0-9]*/'], keepGlobs: [] },
} satisfies Record<string, CheckpointGlobs>

/** What is taken for a checkpoint of a finished training where the job names no framework. */
export const usualCheckpoints = [
  presets.huggingface,
  presets.tensorflow,
  presets.deepspeed,
  presets.megatron,
  { prune: ['**/*epoch*[0-9]*.ckpt', '**/*step*[0-9]*.ckpt', '**/last*.ckpt'] },
].flatMap(({ prune }) => prune)

export type Framework = keyof typeof presets

export const frameworks = Object.keys(presets) as Framework[]

/** Put a framework's globs before those of the job. */
export function globsOf(framework: Framework | undefined, prune: string[], keep: string[]): CheckpointGlobs {
  const preset = framework && presets[framework]
  return {
    prune: [...(preset?.prune ?? []), ...prune],
    keepGlobs: [...(preset?.keepGlobs ?? []), ...keep],
  }
}
