import { type Range, readRanges } from './range-table.ts'

/**
 * The quantities of an activity, a minute:
 *
 * - connections, sent, received: new connections, bytes sent and received
 * - processes: number of processes started
 * - read, written: numbers of files
 * - created, renamed, deleted: shares of the written files; a created file is not an overwritten one
 * - folders: distinct folders a file
 * - readSize, writtenSize: bytes a file
 * - entropy: bits a byte of written data
 * - cpu, memory: percent of the host's
 */
const columns = [
  'connections',
  'sent',
  'received',
  'processes',
  'read',
  'written',
  'created',
  'renamed',
  'deleted',
  'folders',
  'readSize',
  'writtenSize',
  'entropy',
  'cpu',
  'memory',
] as const

/** An activity; each host draws its own values from these ranges. */
export type Activity = Record<(typeof columns)[number], Range>

export type Activities = Record<string, Activity>

/** The activity that goes on beneath every other. */
export const background: Activity = readRanges(
  columns,
  `
        connections sent    received processes read written created renamed deleted folders readSize writtenSize entropy cpu memory
  quiet 1-6         500-2e4 500-5e4  .2-3      1-15 .5-6    .2-.6   0-.2    0-.3    .2-.8   2e3-4e4  300-8e3     3.5-5.5 1-6 1-3`,
).quiet!

/** Ordinary work of all hosts. */
const commonWork: Activities = readRanges(
  columns,
  `
                 connections sent    received processes read    written created renamed deleted folders readSize writtenSize entropy cpu   memory
  idle           ~           ~       ~        ~         ~       ~       ~       ~       ~       ~       ~        ~           ~       ~     ~
  office         2-20        ~       ~        .5-6      5-60    1-15    ~       .1-.6   .1-.5   ~       1e4-5e5  1e4-1e6     5-7.9   3-25  5-30
  build          ~           ~       ~        20-800    200-8e3 40-2e3  .4-.9   ~       0-.4    .02-.2  2e3-5e4  3e3-2e5     4.2-6.5 40-95 10-50
  archive_backup ~           1e3-2e9 ~        ~         80-5e3  1-6     .3-1    ~       ~       .03-.3  2e4-2e6  1e6-1e9     7.5-8   10-80 2-15`,
  background,
)

/** Ordinary work of the hosts that the model learns from. */
export const trainingWork: Activities = {
  ...commonWork,
  ...readRanges(
    columns,
    `
                    connections sent    received processes read   written created renamed deleted folders readSize writtenSize entropy cpu   memory
    browsing        10-120      2e4-2e6 2e5-5e7  ~         10-150 10-200  .6-.95  ~       .1-.6   .05-.3  ~        2e3-1e5     6-7.9   5-40  10-40
    mirror_backup   ~           1e3-1e6 ~        ~         50-3e3 50-3e3  .2-1    .7-1    ~       .05-.4  2e4-1e6  2e4-1e6     5-7.8   5-50  2-10
    software_update 2-30        ~       1e6-3e8  5-150     50-1e3 50-3e3  .5-1    .6-1    0-.6    .03-.3  5e3-2e5  5e3-3e5     5-6.8   15-80 3-15
    media_export    ~           ~       ~        ~         5-200  1-60    .7-1    ~       ~       .02-.1  1e6-5e7  5e5-1e8     7.6-8   30-95 10-50
    code_formatting ~           ~       ~        1-30      30-2e3 20-1e3  0-.1    0-1     0-.1    .03-.3  2e3-4e4  2e3-4e4     4.2-5.5 20-80 3-15
    database        ~           1e4-1e7 1e4-1e7  ~         5-100  5-200   0-.1    0-.1    0-.1    .02-.1  5e4-5e6  2e4-2e6     4-7.5   10-70 10-40`,
    background,
  ),
}

/** Ordinary work of the hosts that the model is measured on; several write much data that looks encrypted. */
export const holdoutWork: Activities = {
  ...commonWork,
  ...readRanges(
    columns,
    `
                       connections sent    received processes read    written created renamed deleted folders readSize writtenSize entropy cpu   memory
    mail_sync          3-40        ~       1e5-5e7  ~         5-100   5-300   .5-1    .3-1    ~       .02-.2  ~        3e3-1e5     4.8-6.2 ~     ~
    virus_scan         ~           ~       ~        ~         300-2e4 ~       ~       ~       ~       .03-.3  1e4-5e5  ~           ~       20-80 3-15
    incremental_backup ~           1e3-5e8 ~        ~         50-3e3  10-500  .9-1    .7-1    ~       .02-.3  1e4-1e6  5e5-8e6     7.8-8   10-70 3-20
    log_compression    ~           ~       ~        1-30      3-150   3-150   .8-1    .2-1    .7-1    .02-.2  1e5-2e7  2e4-2e6     7.5-8   20-60 ~
    photo_import       ~           ~       1e3-1e8  ~         10-300  10-300  .9-1    .3-1    ~       .01-.1  1e6-1e7  1e6-1e7     7.6-8   5-40  ~
    version_control    1-10        ~       1e4-1e8  5-100     30-2e3  30-2e3  .1-.6   .4-1    0-.4    .03-.3  3e3-8e4  3e3-8e4     4.5-6.8 10-60 ~
    encrypted_vault    ~           1e4-1e8 ~        ~         3-150   3-100   .1-.6   .3-1    0-.3    .05-.5  3e4-2e6  3e4-2e6     7.8-8   3-25  ~`,
    background,
  ),
}

/** Ransomware that the model learns from. */
export const trainingFamilies: Activities = readRanges(
  columns,
  `
               connections sent received processes read    written created renamed deleted folders readSize writtenSize entropy cpu   memory
  fast         ~           ~    ~        .2-20     300-8e3 300-8e3 0-.05   .9-1    0-.05   .03-.4  2e4-2e6  2e4-2e6     7.7-8   15-90 ~
  copying      ~           ~    ~        ~         50-3e3  50-3e3  .9-1    0-.1    .9-1    .03-.4  2e4-2e6  2e4-2e6     7.7-8   10-60 ~
  throttled    ~           ~    ~        ~         8-120   8-120   0-.1    .7-1    0-.2    .05-.6  2e4-1e6  2e4-1e6     7.6-8   1-15  ~
  intermittent ~           ~    ~        ~         200-8e3 200-8e3 0-.05   .5-1    0-.05   .03-.4  5e3-2e5  5e3-2e5     6-7.8   5-40  ~`,
  background,
)

/** Ransomware that the model has never seen. */
export const holdoutFamilies: Activities = readRanges(
  columns,
  `
               connections sent    received processes read     written  created renamed deleted folders readSize writtenSize entropy cpu   memory
  exfiltrating 2-40        1e6-2e9 ~        ~         50-1.5e3 50-1.5e3 0-.2    .6-1    ~       .03-.4  3e4-2e6  3e4-2e6     7.6-8   10-60 ~
  in_place     ~           ~       ~        ~         20-1.5e3 20-1.5e3 0-.02   0-.05   0-.02   .05-.5  2e4-1e6  2e4-1e6     7.5-8   3-40  ~
  patient      ~           ~       ~        ~         3-30     3-30     0-.5    .3-1    0-.5    .1-.8   2e4-1e6  1e4-1e6     6.5-8   1-8   ~`,
  background,
)
