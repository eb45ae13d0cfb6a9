/** One row of data: raw features, the index of its class, its source and its kind. */
export type Sample = { features: Float32Array; label: number; source: string; kind: string }

/** A dataset whose training and holdout share no `source`. `description` describes the data in one sentence. */
export type Dataset = { training: Sample[]; holdout: Sample[]; description: string }

/** A sample with the model's prediction. */
export type Scored = Sample & { probabilities: Float32Array; predicted: number }
