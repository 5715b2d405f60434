/** Clients that talk to programs under test. */
import { connect, createServer } from 'node:net';

/** Everything that a TCP server on this host sends until it closes. */
export function readAll(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    socket.setEncoding('utf8').setTimeout(60_000, () => socket.destroy(new Error(`port ${port}: no answer`)));
    socket.on('data', (data: string) => (text += data));
    socket.on('error', reject);
    socket.on('close', () => resolve(text));
  });
}

/** As many bytes as were sent, of what a TCP server on this host answers to a text. */
export function exchange(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    let answer = '';
    socket.setEncoding('latin1').setTimeout(60_000, () => socket.destroy(new Error(`port ${port}: no answer`)));
    socket.on('data', (data: string) => {
      answer += data;
      if (answer.length >= text.length) socket.end(() => resolve(answer));
    });
    socket.on('error', reject);
    socket.on('end', () => resolve(answer));
  });
}

/** The JSON document at a URL of a server on this host, over a connection of its own. */
export async function getJson<T>(port: number, path = '/'): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    headers: { connection: 'close' },
    signal: AbortSignal.timeout(60_000),
  });
  if (!response.ok) throw new Error(`HTTP status ${response.status}: ${await response.text()}`);
  return (await response.json()) as T;
}

/**
 * A free TCP port below those that the kernel gives to clients: between a capture and the restore nobody's outgoing connection can take it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const probe = createServer();
    const free = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

/** Resolves when a server accepts connections at a port; rejects after a minute without one. */
export async function untilListening(port: number): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const listening = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    if (listening) return;
    if (Date.now() > deadline) throw new Error(`nothing listens at port ${port}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
