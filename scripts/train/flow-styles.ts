import { type Range, readRanges } from './range-table.ts'

/** The four classes of flows; the first is harmless. */
export const flowClasses = ['normal', 'c2_beaconing', 'data_exfiltration', 'port_scan'] as const

/**
 * A style of talking to another host is a series of bursts of exchanges, each a request and its response:
 *
 * - gapS, jitter: mean seconds between bursts; their variation: 0 is clockwork, 1 and more is people
 * - burst: exchanges in a burst
 * - upBytes, downBytes, spread: bytes of request and response; their variation within a flow
 * - entropy: bits a byte of payloads; encrypted traffic is near 8
 * - reuse: the chance that the next exchange uses the same connection
 * - ports: number of different ports that connections go to
 * - answered, refused: the chance that a connection is answered; if not, that it is refused rather than ignored
 * - datagrams: 1 for no handshake, no acknowledgements
 */
const columns = [
  'gapS',
  'jitter',
  'burst',
  'upBytes',
  'downBytes',
  'spread',
  'entropy',
  'reuse',
  'ports',
  'answered',
  'refused',
  'datagrams',
] as const

/** A style of flows; each flow draws its own values from these ranges. */
export type FlowStyle = Record<(typeof columns)[number], Range>

export type FlowStyles = Record<(typeof flowClasses)[number], Record<string, FlowStyle>>

/** The styles that the model learns from. */
export const trainingStyles: FlowStyles = {
  normal: readRanges(
    columns,
    `
                    gapS     jitter burst upBytes   downBytes spread entropy reuse  ports answered refused datagrams
    web_browsing    5-60     .8-1.5 4-25  300-1.5e3 2e3-2e5   .5-1.5 7-8     .7-.95 1     1        1       0
    video_streaming 2-10     .05-.4 1     300-900   1e5-2e6   .3-1   7-8     .9-1   1     1        1       0
    ssh_session     .2-20    .8-2   1-8   36-100    36-2e3    .3-1   5.5-8   1      1     1        1       0
    dns_lookups     2-120    .8-2   1-5   30-60     60-300    .1-.5  3.5-5   1      1     1        1       1
    voice_call      .015-.03 0-.3   1     50-250    50-250    0-.3   7-8     1      1     1        1       1
    team_chat       3-120    .7-2   1-6   50-3e3    50-2e4    .5-1.5 7-8     .95-1  1     1        1       0
    telemetry       10-300   .01-.4 1     200-4e3   80-500    0-.8   4.5-8   0-1    1     1        1       0
    mail_polling    60-300   .02-.3 3-8   30-200    50-5e3    .3-1   7-8     .8-1   1     1        1       0
    backup_upload   .05-5    .3-1   1     1e5-4e6   150-3e3   .3-1   7-8     .9-1   1     1        1       0
    health_checks   2-60     .01-.3 1     1-200     1-500     .3-1   3-6     0-.3   2-8   .6-1     0-1     0`,
  ),
  c2_beaconing: readRanges(
    columns,
    `
                    gapS    jitter burst upBytes   downBytes spread entropy reuse ports answered refused datagrams
    http_beacon     20-300  0-.35  1     150-800   80-600    0-.4   5-8     0-1   1     1        1       0
    sleeping_beacon 120-900 .05-.5 1     300-1.2e3 150-2e3   0-.5   7-8     0-.1  1     1        1       0
    tasked_beacon   5-90    .1-.5  1     150-3e3   100-2e4   .5-1.5 7-8     0-1   1     1        1       0
    dns_beacon      5-180   0-.4   1     50-140    50-250    0-.3   4.5-6   1     1     1        1       1`,
  ),
  data_exfiltration: readRanges(
    columns,
    `
                        gapS  jitter burst upBytes downBytes spread entropy reuse ports answered refused datagrams
    bulk_exfiltration   .02-2 .2-1   1     3e5-2e7 40-500    .3-1   7.5-8   .5-1  1     1        1       0
    staged_exfiltration 5-200 .1-.8  1     3e4-2e6 40-800    0-.5   7-8     0-.6  1     1        1       0
    plain_exfiltration  .2-30 .3-1   1     1e4-1e6 30-300    .5-1.5 4.5-7.5 0-.3  1     1        1       0
    dns_tunnel          .05-2 .2-1   1     110-230 50-150    0-.3   5-6.2   1     1     1        1       1`,
  ),
  port_scan: readRanges(
    columns,
    `
                 gapS    jitter burst upBytes downBytes spread entropy reuse ports  answered refused datagrams
    syn_scan     .001-.3 0-1    1     0       0         .3-1   0       0     50-1e3 0-.1     0-1     0
    connect_scan .01-3   0-1    1     0       1-80      .3-1   3-6     0     10-200 .02-.4   0-1     0`,
  ),
}

/** The styles that the model is measured on: other programs and other attackers. */
export const holdoutStyles: FlowStyles = {
  normal: readRanges(
    columns,
    `
                      gapS    jitter burst upBytes   downBytes spread entropy reuse ports answered refused datagrams
    web_application   3-40    .2-1.2 1-6   400-2.5e3 200-5e4   .3-1   7-8     .8-1  1     1        1       0
    download          .5-60   .5-1.5 1     150-600   1e6-5e7   .3-1   7-8     .3-1  1     1        1       0
    remote_desktop    .05-5   .5-1.5 1-12  50-250    150-3e4   .3-1   7-8     1     1     1        1       0
    video_call        .01-.04 .1-.6  1     150-1.2e3 150-1.2e3 .3-1   7-8     1     1     1        1       1
    file_sync         1-90    .5-1.5 1-10  2e3-1e6   200-8e3   .8-1.8 7-8     .8-1  1     1        1       0
    keep_alive        15-400  0-.2   1     2-120     2-120     0-.2   1-6     .9-1  1     1        1       0
    service_discovery .5-30   .3-1.2 1     20-400    20-1e3    .3-1   3-6     0-.5  3-14  .3-.9    .3-1    0`,
  ),
  c2_beaconing: readRanges(
    columns,
    `
                           gapS   jitter burst upBytes   downBytes spread entropy reuse ports answered refused datagrams
    implant_over_websocket 10-120 .05-.5 1     120-700   60-500    .1-.6  5.5-8   .9-1  1     1        1       0
    irregular_beacon       30-700 .4-.9  1     200-1.5e3 100-1.5e3 .1-.7  7-8     0-.4  1     1        1       0
    udp_implant            15-200 .1-.6  1     70-500    40-400    0-.4   5-8     1     1     1        1       1`,
  ),
  data_exfiltration: readRanges(
    columns,
    `
                          gapS   jitter burst upBytes   downBytes spread entropy reuse ports answered refused datagrams
    exfiltration_to_cloud .2-20  .2-1   1     1e5-8e6   200-1.5e3 0-.8   7-8     .3-1  1     1        1       0
    slow_exfiltration     20-400 .3-1   1     4e3-8e4   60-600    0-.6   7-8     0-1   1     1        1       0
    icmp_tunnel           .02-2  .2-1   1     200-1.4e3 40-250    0-.4   6-8     1     1     1        1       1`,
  ),
  port_scan: readRanges(
    columns,
    `
                gapS  jitter burst upBytes downBytes spread entropy reuse ports answered refused datagrams
    banner_scan .05-5 0-1    1     1-60    10-400    .3-1   3-6     0     8-60  .1-.6    0-1     0
    slow_scan   5-120 0-1.2  1     0       0         .3-1   0       0     8-100 0-.3     0-1     0`,
  ),
}
