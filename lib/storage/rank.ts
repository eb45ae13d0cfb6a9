/** The order of removal when there must be room; `arrange.ts` has the order within a rank. */
export const RANK = { temporary: 0, cache: 1, superseded: 2, checkpoint: 3 } as const
export type Rank = (typeof RANK)[keyof typeof RANK]

/** Why something may be pruned: the glob that names it, or what else it is. */
export type Rule = { name: string; rank: Rank }
