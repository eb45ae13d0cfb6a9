import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

/**
 * Watch a folder's charged bytes from outside, in a process of its own and by other means than the program's:
 * `find -printf`, as fast as it goes.
 *
 * @returns a function that stops it and gives the highest usage seen, and how often it looked
 */
export function sampleUsage(
  dir: string,
  report: string,
): () => Promise<{ peakBytes: number; samples: number }> {
  const script = `
dir=$1 report=$2 peak=0 samples=0
while [ ! -e "$report.stop" ]; do
  used=$(find "$dir" -xdev -printf '%i %y %s %b\\n' 2>/dev/null | awk '!seen[$1]++ { own = 512 * $4; if ($2 == "f" && $3 > own) own = $3; sum += own } END { printf "%.0f", sum }')
  [ "\${used:-0}" -gt "$peak" ] && peak=$used
  samples=$((samples + 1))
  sleep 0.02 # others need the processor too
done
echo "$peak $samples" > "$report.tmp"; mv "$report.tmp" "$report"`
  const child = spawn('bash', ['-c', script, 'sampler', dir, report], { stdio: 'ignore' })
  const ended = new Promise(resolve => child.once('exit', resolve))
  return async () => {
    spawn('touch', [`${report}.stop`])
    await ended
    const [peakBytes, samples] = existsSync(report) ? readFileSync(report, 'utf8').split(' ').map(Number) : []
    return { peakBytes: peakBytes ?? 0, samples: samples ?? 0 }
  }
}
