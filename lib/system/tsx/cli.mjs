#!/usr/bin/env node
/** What `npx tsx` runs: tsx itself, without its cache. It starts a child, which would see another temporary folder. */
process.env.TSX_DISABLE_CACHE = '1'
await import('tsx/cli')
