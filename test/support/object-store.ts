/** A real object store (Ceph's gateway), and a proxy in front of it that makes it fail as networks and stores do. */
import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { access } from 'node:fs/promises';
import { createServer as createHttpServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type AddressInfo, type Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { missing, root } from './cores.js';

process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';

export const storePrograms = missing('ceph-mon', 'ceph-osd', 'radosgw', 'radosgw-admin', 'ceph-authtool', 'monmaptool', 'ceph');

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
}

export const owner: Credentials = { accessKeyId: 'WARPKEY', secretAccessKey: 'warpsecret123' };
/** Known to the store, with no right to anything of the owner's. */
export const stranger: Credentials = { accessKeyId: 'STRANGER', secretAccessKey: 'strangersecret1' };

export interface TestStore {
  port: number;
  endpoint: string;
  /** Speaks to the store itself, past all faults. */
  client: S3Client;
  stop(): Promise<void>;
}

/** Starts a store with one empty bucket. It ends with this process, however that ends. */
export async function startStore(bucket: string): Promise<TestStore> {
  const ports = await freePorts(3);
  const inMemory = await access('/dev/shm').then(
    () => '/dev/shm',
    () => tmpdir(),
  );
  const directory = mkdtempSync(join(inMemory, 'warp-tool-store-'));
  const child = spawn(join(root, 'test/support/object-store.sh'), [directory, ...ports.map(String)], { stdio: ['pipe', 'pipe', 'pipe'] });
  let problem = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (problem += text));
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const ready = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  if (ready.value !== 'READY') throw new Error(`the object store did not start: ${problem}`);
  const endpoint = `http://127.0.0.1:${ports[0]}`;
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials: owner });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  return {
    port: ports[0]!,
    endpoint,
    client,
    stop: async () => {
      client.destroy();
      child.stdin.end();
      await ended;
    },
  };
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(Array.from({ length: count }, () => listening(createServer())));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

function listening<S extends NetServer>(server: S): Promise<S> {
  return new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', () => resolve(server)));
}

/** What happens to one request. */
export interface Fault {
  /** Done before the request goes on. */
  before?: () => Promise<void>;
  /** The store does not see the request; this is the answer. */
  answer?: { status: number; headers?: Record<string, string>; body?: string };
  /** The store does not see the request, and nobody answers. */
  hold?: boolean;
  /** The store does what it is asked, but the connection breaks before its answer. */
  loseAnswer?: boolean;
  /** The connection breaks after so many bytes of the answer's body. */
  breakAfter?: number;
  /** The answer stops after so many bytes of its body; the connection stays. */
  stallAfter?: number;
  /** Headers of the answer that are other than the store's. */
  headers?: Record<string, string>;
}

/** A request that the proxy got. */
export interface Seen {
  method: string;
  /** Path and query, as sent. */
  path: string;
  range: string | undefined;
  /** Bytes of the answer's body that were sent on. */
  bytes: number;
  fault: Fault | undefined;
}

export class FaultyProxy {
  /** Every request so far. */
  seen: Seen[] = [];
  /** Decides what happens to a request. */
  rule: (request: Seen) => Fault | undefined = () => undefined;
  private readonly waiting: { matches: (request: Seen) => boolean; resolve: () => void }[] = [];

  private constructor(
    private readonly server: Server,
    private readonly port: number,
    private readonly scheme: 'http' | 'https',
  ) {
    server.on('request', (incoming: IncomingMessage, outgoing: ServerResponse) => void this.handle(incoming, outgoing));
  }

  static async start(port: number, tls?: { key: Buffer; cert: Buffer }): Promise<FaultyProxy> {
    const server = await listening(tls ? createHttpsServer(tls) : createHttpServer());
    return new FaultyProxy(server as Server, port, tls ? 'https' : 'http');
  }

  get endpoint(): string {
    return `${this.scheme}://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Forgets what was seen, and goes by another rule. */
  reset(rule: FaultyProxy['rule'] = () => undefined): void {
    this.seen = [];
    this.rule = rule;
  }

  /** Until a request comes that `matches`. */
  next(matches: (request: Seen) => boolean): Promise<void> {
    return new Promise((resolve) => this.waiting.push({ matches, resolve }));
  }

  /** Bytes of content that left the store. */
  get bytes(): number {
    return this.seen.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private async handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const seen: Seen = { method: incoming.method!, path: incoming.url!, range: incoming.headers.range, bytes: 0, fault: undefined };
    this.seen.push(seen);
    const fault = this.rule(seen) ?? {};
    seen.fault = fault;
    for (const { matches, resolve } of this.waiting) if (matches(seen)) resolve();
    if (fault.hold) return;
    await fault.before?.();
    if (fault.answer) {
      incoming.resume();
      outgoing.writeHead(fault.answer.status, fault.answer.headers).end(fault.answer.body);
      return;
    }
    // The Host header is part of the signature, so it goes on as it came.
    const forwarded = request({
      host: '127.0.0.1',
      port: this.port,
      method: incoming.method,
      path: incoming.url,
      headers: incoming.headers,
    });
    const drop = (): void => void outgoing.socket?.destroy();
    forwarded.on('error', drop);
    outgoing.on('close', () => forwarded.destroy());
    forwarded.on('response', (answer) => {
      if (fault.loseAnswer) return drop();
      outgoing.writeHead(answer.statusCode!, { ...answer.headers, ...fault.headers });
      const limit = fault.breakAfter ?? fault.stallAfter ?? Infinity;
      answer.on('data', (chunk: Buffer) => {
        const sent = chunk.subarray(0, limit - seen.bytes);
        seen.bytes += sent.length;
        const flushed = outgoing.write(sent);
        if (seen.bytes >= limit) {
          answer.removeAllListeners('data').pause();
          if (fault.breakAfter !== undefined) outgoing.socket!.end();
          return;
        }
        if (!flushed) {
          answer.pause();
          outgoing.once('drain', () => answer.resume());
        }
      });
      answer.on('end', () => outgoing.end());
      answer.on('error', drop);
    });
    incoming.pipe(forwarded);
  }
}
