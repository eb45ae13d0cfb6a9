/** One row of data: raw features, the index of its class, where it came from and what kind of thing it is. */
export type Sample = { features: Float32Array; label: number; source: string; kind: string }

/** Training and holdout share no `source`; `description` says in one sentence what the data is. */
export type Dataset = { training: Sample[]; holdout: Sample[]; description: string }

/** A sample and what the model says of it. */
export type Scored = Sample & { probabilities: Float32Array; predicted: number }
