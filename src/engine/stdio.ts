import { readFileSync } from 'node:fs';

const O_NONBLOCK = 0o4000;

/** Whether a descriptor's open file description is non-blocking (proc(5), /proc/PID/fdinfo). */
function nonBlocking(fd: number): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
    return flags !== null && (Number.parseInt(flags[1]!, 8) & O_NONBLOCK) !== 0;
  } catch {
    return false; // closed
  }
}

// Read before anything touches process.stdout: libuv makes a pipe non-blocking then, for everybody who shares it.
const nonBlockingAtStart = new Map([1, 2].map((fd) => [fd, nonBlocking(fd)]));

/** Gives stdout and stderr back as they were found, for a program that takes this process's place. */
export function restoreStandardStreams(): void {
  for (const stream of [process.stdout, process.stderr]) {
    if (nonBlockingAtStart.get(stream.fd)) continue;
    // oxlint-disable-next-line no-underscore-dangle -- the only way to fcntl from JavaScript
    (stream as unknown as { _handle?: { setBlocking?: (blocking: boolean) => void } })._handle?.setBlocking?.(true);
  }
}
