import type { HostWindow } from './host-simulator.ts'

/** Names of the features that `hostFeatures` measures, in its order; `_log` is the natural logarithm of one more. */
export const hostFeatureNames = [
  'network_connections_log',
  'bytes_sent_log',
  'bytes_received_log',
  'process_creations_log',
  'files_read_log',
  'files_overwritten_log',
  'files_created_log',
  'files_renamed_log',
  'files_deleted_log',
  'folders_touched_log',
  'disk_read_bytes_log',
  'disk_written_bytes_log',
  'written_entropy_bits',
  'cpu_percent',
  'memory_percent',
  'overwritten_share_of_written',
  'renamed_share_of_written',
  'written_share_of_read_files',
  'written_share_of_disk_bytes',
] as const

/** Describe one minute of a host. */
export function hostFeatures(window: HostWindow): Float32Array {
  const { filesRead, filesOverwritten, filesRenamed, readBytes, writtenBytes } = window
  const filesWritten = filesOverwritten + window.filesCreated
  return Float32Array.from([
    Math.log1p(window.connections),
    Math.log1p(window.sentBytes),
    Math.log1p(window.receivedBytes),
    Math.log1p(window.processes),
    Math.log1p(filesRead),
    Math.log1p(filesOverwritten),
    Math.log1p(window.filesCreated),
    Math.log1p(filesRenamed),
    Math.log1p(window.filesDeleted),
    Math.log1p(window.foldersTouched),
    Math.log1p(readBytes),
    Math.log1p(writtenBytes),
    window.writtenEntropyBits,
    window.cpuPercent,
    window.memoryPercent,
    share(filesOverwritten, filesWritten),
    share(filesRenamed, filesRenamed + filesWritten),
    share(filesWritten, filesWritten + filesRead),
    share(writtenBytes, writtenBytes + readBytes),
  ])
}

function share(part: number, whole: number): number {
  return whole > 0 ? part / whole : 0
}
