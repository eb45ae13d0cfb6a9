/** A systemd unit: its file's name, and what is in it. */
export type Unit = { name: string; text: string }

/** The unit that mounts a volume at boot, before any training. */
export function mountUnit(image: string, folder: string): Unit {
  const name = `${escapePath(folder)}.mount`
  const text = `# /etc/systemd/system/${name}
[Unit]
Description=Volume of ransomeye-trainer on ${specifierFree(folder)}
Before=ransomeye-trainer.service

[Mount]
What=${specifierFree(image)}
Where=${specifierFree(folder)}
Type=ext4
Options=loop,nodev,nosuid

[Install]
WantedBy=multi-user.target
RequiredBy=ransomeye-trainer.service
`
  return { name, text }
}

/** As systemd-escape(1) does with `--path`. */
function escapePath(path: string): string {
  const names = path.split('/').filter(Boolean).join('/')
  const bytes = Array.from(Buffer.from(names), (byte, index) => {
    const character = String.fromCharCode(byte)
    if (character === '/') return '-'
    const isPlain = /[a-zA-Z0-9:_.]/.test(character) && !(index === 0 && character === '.')
    return isPlain ? character : `\\x${byte.toString(16).padStart(2, '0')}`
  })
  return bytes.join('') || '-'
}

function specifierFree(path: string): string {
  return path.replaceAll('%', '%%')
}
