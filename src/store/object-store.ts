import { readFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
  type GetObjectCommandOutput,
  type S3ClientConfig,
} from './sdk.js';
import { Failure, systemErrorReason } from '../failure.js';
import { explain, NO_STORE, statusOf, type Destination, type Permission } from './errors.js';
import { urlOf, type Location } from './location.js';

export interface StoreOptions {
  /** Base URL of the store; without it, the environment and the shared configuration files tell. */
  endpoint?: string | undefined;
  region?: string | undefined;
  /** Seconds without a byte after which a request is sent again. */
  timeout?: number | undefined;
}

export interface ObjectFacts {
  /** Bytes. */
  size: bigint;
  etag: string;
  modified: Date | null;
  /** Null where the bucket has no versions. */
  version: string | null;
  /** What was stored beside the content; names in lower case. */
  metadata: Record<string, string>;
}

export interface ListedObject {
  key: string;
  /** Bytes. */
  size: number;
  modified: Date | null;
}

/** What a new object may take the place of: nothing, anything, or the object with this ETag only. */
export type Replaceable = 'nothing' | 'anything' | { etag: string };

/** A part that the store has taken. */
export interface Part {
  PartNumber: number;
  ETag: string;
}

const TIMEOUT_S = 60;
const CONNECT_TIMEOUT_MS = 10_000;
/** Of one request, and of one transfer that breaks off again and again. */
const ATTEMPTS = 5;
const CONNECTIONS = 64;
const GOOGLE = 'https://storage.googleapis.com';

/** One bucket of an object store that speaks the S3 protocol. Requests that fail for a passing reason are repeated; errors are Failures. */
export class ObjectStore {
  private constructor(
    private readonly client: S3Client,
    readonly destination: Destination,
  ) {}

  static async connect({ scheme, bucket }: Location, options: StoreOptions = {}): Promise<ObjectStore> {
    // The SDK would tell users of Node.js 20 on stderr that its next versions want a newer one.
    process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
    const { AWS_CA_BUNDLE, AWS_REGION, AWS_DEFAULT_REGION, GS_ENDPOINT_URL } = process.env;
    const ca = AWS_CA_BUNDLE ? readAuthorities(AWS_CA_BUNDLE) : undefined;
    const settings: S3ClientConfig = {
      maxAttempts: ATTEMPTS,
      // Stores other than AWS refuse the newer checksums; the payload's SHA-256 is part of the signature.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      followRegionRedirects: true,
      // "Expect: 100-continue" would cost a connection and a round trip for each part.
      expectContinueHeader: false,
      requestHandler: {
        connectionTimeout: CONNECT_TIMEOUT_MS,
        socketTimeout: (options.timeout ?? TIMEOUT_S) * 1000,
        httpAgent: { maxSockets: CONNECTIONS },
        httpsAgent: { maxSockets: CONNECTIONS, ...(ca && { ca }) },
      },
    };
    if (scheme === 'gs') {
      const endpoint = checkedEndpoint(options.endpoint ?? (GS_ENDPOINT_URL || GOOGLE));
      const region = options.region ?? 'auto';
      const client = new S3Client({ ...settings, endpoint, region, forcePathStyle: true, credentials: googleCredentials });
      return new ObjectStore(client, { scheme, bucket, endpoint, region });
    }
    const configured = new S3Client(settings).config as S3Client['config'] & {
      serviceConfiguredEndpoint?: () => Promise<string | undefined>;
    };
    const found = options.endpoint ?? (await configured.serviceConfiguredEndpoint?.());
    const endpoint = found === undefined ? null : checkedEndpoint(found);
    // The AWS CLI takes AWS_DEFAULT_REGION too, and does without a region; the SDK does neither.
    const region = (options.region ?? AWS_REGION) || AWS_DEFAULT_REGION || (await configured.region().catch(() => 'us-east-1'));
    const own = endpoint === null ? {} : { endpoint, forcePathStyle: !/\.amazonaws\.com(\.cn)?$/.test(new URL(endpoint).hostname) };
    return new ObjectStore(new S3Client({ ...settings, ...own, region, ...keysOfEnvironment() }), { scheme, bucket, endpoint, region });
  }

  url(key: string): string {
    return urlOf({ ...this.destination, key });
  }

  close(): void {
    this.client.destroy();
  }

  /** Null when there is no such object. */
  async head(key: string): Promise<ObjectFacts | null> {
    return this.attempt(`cannot look at ${this.url(key)}`, 's3:GetObject', async () => {
      try {
        return factsOf(await this.client.send(new HeadObjectCommand({ Bucket: this.destination.bucket, Key: key })));
      } catch (error) {
        if (statusOf(error) === 404) return null;
        // The answer to a HEAD has no body, so it does not tell why: that to a GET does.
        const response = await this.get(key, 0n, 1, undefined, undefined);
        (response.Body as Readable).destroy();
        throw error;
      }
    });
  }

  /** What an object is, and its first bytes, at most `length` of them, in one request. */
  async open(key: string, length: number): Promise<{ facts: ObjectFacts; content: Buffer }> {
    let response: GetObjectCommandOutput;
    try {
      response = await this.get(key, 0n, length, undefined, undefined);
    } catch (error) {
      // An empty object has no first byte.
      if (error instanceof Failure && statusOf(error.cause) === 416) {
        const facts = await this.head(key);
        if (facts?.size === 0n) return { facts, content: Buffer.alloc(0) };
      }
      throw error;
    }
    const size = BigInt(/\/(\d+)$/.exec(response.ContentRange ?? '')?.[1] ?? response.ContentLength ?? 0);
    const facts = { ...factsOf(response), size };
    const content = Buffer.allocUnsafe(size < BigInt(length) ? Number(size) : length);
    await this.receive(key, facts.etag, 0n, [content], undefined, response);
    return { facts, content };
  }

  /** Fills `pieces` one after the other with the bytes from `offset` on. Fails when the object no longer has this ETag. */
  async readInto(key: string, etag: string, offset: bigint, pieces: readonly Buffer[], signal?: AbortSignal): Promise<void> {
    await this.receive(key, etag, offset, pieces, signal);
  }

  /** A transfer that breaks off goes on where it stopped. */
  private async receive(
    key: string,
    etag: string,
    offset: bigint,
    pieces: readonly Buffer[],
    signal: AbortSignal | undefined,
    first?: GetObjectCommandOutput,
  ): Promise<void> {
    const target = new Scatter(pieces);
    let response = first;
    for (let failures = 0; target.done < target.size;) {
      try {
        response ??= await this.get(key, offset + BigInt(target.done), target.size - target.done, etag, signal);
        for await (const chunk of response.Body as Readable) target.fill(chunk as Buffer);
        if (target.done < target.size) throw new Error(`the answer ended ${target.size - target.done} bytes early`);
      } catch (error) {
        if (error instanceof Failure || signal?.aborted) throw error;
        if (++failures === ATTEMPTS) {
          const at = offset + BigInt(target.done);
          throw new Failure(
            `cannot read ${this.url(key)} at offset 0x${at.toString(16)}: the transfer broke off ${failures} times (${(error as Error).message}); try again later`,
            { cause: error },
          );
        }
        await sleep(Math.min(5000, 100 * 2 ** failures) * (0.5 + Math.random() / 2), undefined, { signal });
      }
      response = undefined;
    }
  }

  private async get(
    key: string,
    offset: bigint,
    length: number,
    etag: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<GetObjectCommandOutput> {
    const what = `cannot read ${this.url(key)}`;
    return this.attempt(what, 's3:GetObject', async () => {
      const command = new GetObjectCommand({
        Bucket: this.destination.bucket,
        Key: key,
        Range: `bytes=${offset}-${offset + BigInt(length) - 1n}`,
        IfMatch: etag,
      });
      let response: GetObjectCommandOutput;
      try {
        response = await this.client.send(command, { ...(signal && { abortSignal: signal }) });
      } catch (error) {
        if (statusOf(error) === 412) throw changed(this.url(key), error);
        throw error;
      }
      let problem: Error | undefined;
      if (!response.ETag) problem = Object.assign(new Error('there is no ETag in the answer'), { name: NO_STORE });
      else if (etag !== undefined && response.ETag !== etag) problem = changed(this.url(key));
      const start = /^bytes (\d+)-/.exec(response.ContentRange ?? '')?.[1];
      // The whole object instead of a range is right where it is no more than was asked for.
      const whole = start === undefined && offset === 0n && (response.ContentLength ?? Infinity) <= length;
      if (!whole && start !== String(offset)) {
        problem ??= new Failure(
          `${what}: the store did not answer with the range that was asked for; images need a store that knows ranges`,
        );
      }
      if (!problem) return response;
      (response.Body as Readable).destroy();
      throw problem;
    });
  }

  /** Whether what is there now may be replaced. */
  async mayReplace(key: string, replaceable: Replaceable): Promise<boolean> {
    if (replaceable === 'anything') return true;
    const there = await this.head(key);
    return replaceable === 'nothing' ? !there : there?.etag === replaceable.etag;
  }

  /** One object in one request; false when there is one that may not be replaced. */
  async put(
    key: string,
    content: Buffer,
    metadata: Record<string, string>,
    replaceable: Replaceable,
    signal: AbortSignal,
  ): Promise<boolean> {
    return this.create(`cannot write ${this.url(key)}`, key, replaceable, (condition) =>
      this.client.send(
        new PutObjectCommand({
          ...this.target(key),
          Body: content,
          ContentType: CONTENT_TYPE,
          Metadata: metadata,
          ...condition,
        }),
        { abortSignal: signal },
      ),
    );
  }

  /** Starts an upload in parts and gives its id. */
  async createUpload(key: string, metadata: Record<string, string>): Promise<string> {
    return this.attempt(`cannot write ${this.url(key)}`, 's3:PutObject', async () => {
      const command = new CreateMultipartUploadCommand({ ...this.target(key), ContentType: CONTENT_TYPE, Metadata: metadata });
      return (await this.client.send(command)).UploadId!;
    });
  }

  /** Sends one part; numbers start at 1. */
  async uploadPart(key: string, upload: string, number: number, content: Buffer, signal: AbortSignal): Promise<Part> {
    return this.attempt(`cannot write part ${number} of ${this.url(key)}`, 's3:PutObject', async () => {
      const command = new UploadPartCommand({ ...this.target(key), UploadId: upload, PartNumber: number, Body: content });
      const { ETag } = await this.client.send(command, { abortSignal: signal });
      return { PartNumber: number, ETag: ETag! };
    });
  }

  /** Makes the parts one object, which is visible from then on; false when there is one that may not be replaced. */
  async completeUpload(key: string, upload: string, parts: Part[], replaceable: Replaceable): Promise<boolean> {
    return this.create(`cannot complete ${this.url(key)}`, key, replaceable, (condition) =>
      this.client.send(
        new CompleteMultipartUploadCommand({
          ...this.target(key),
          UploadId: upload,
          MultipartUpload: { Parts: parts },
          ...condition,
        }),
      ),
    );
  }

  /** Removes an upload and its parts. A part that was on its way may arrive after that, so the store is asked what it still has. */
  async abortUpload(key: string, upload: string): Promise<void> {
    const request = { ...this.target(key), UploadId: upload };
    await this.attempt(`cannot remove the upload ${upload} of ${this.url(key)}`, 's3:AbortMultipartUpload', async () => {
      const gone = (error: unknown): boolean => statusOf(error) === 404;
      // Who may not ask has to be content with the answer to the removal.
      const hidden = (error: unknown): boolean => statusOf(error) === 403;
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        if (!(await succeeds(this.client.send(new AbortMultipartUploadCommand(request)), gone))) return;
        if (!(await succeeds(this.client.send(new ListPartsCommand(request)), (error) => gone(error) || hidden(error)))) return;
      }
      throw new Failure('parts kept arriving');
    });
  }

  /** Objects whose key starts with `prefix`, in the store's order, page by page. */
  async *list(prefix: string): AsyncGenerator<ListedObject[]> {
    for (let token: string | undefined, more = true; more;) {
      // oxlint-disable-next-line no-loop-func
      const page = await this.attempt(`cannot list ${this.url(prefix)}`, 's3:ListBucket', () =>
        this.client.send(
          new ListObjectsV2Command({
            Bucket: this.destination.bucket,
            Prefix: prefix,
            // A key may hold characters that XML cannot.
            EncodingType: 'url',
            ContinuationToken: token,
          }),
        ),
      );
      const decoded = (key: string): string => (page.EncodingType === 'url' ? decodeURIComponent(key.replaceAll('+', ' ')) : key);
      yield (page.Contents ?? []).map(({ Key, Size, LastModified }) => ({
        key: decoded(Key!),
        size: Size ?? 0,
        modified: LastModified ?? null,
      }));
      token = page.NextContinuationToken;
      more = page.IsTruncated === true && token !== undefined;
    }
  }

  private target(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.destination.bucket, Key: key };
  }

  private async create(
    what: string,
    key: string,
    replaceable: Replaceable,
    send: (condition: { IfNoneMatch?: '*'; IfMatch?: string }) => Promise<unknown>,
  ): Promise<boolean> {
    const condition =
      replaceable === 'nothing' ? ({ IfNoneMatch: '*' } as const) : replaceable === 'anything' ? {} : { IfMatch: replaceable.etag };
    return this.attempt(what, 's3:PutObject', async () => {
      try {
        await send(condition);
      } catch (error) {
        // 409: somebody else wrote the same key at the same moment. NoSuchKey: there is none any more that could match.
        if (statusOf(error) === 412 || ['ConditionalRequestConflict', 'NoSuchKey'].includes((error as Error).name)) return false;
        if (replaceable === 'anything' || statusOf(error) !== 501) throw error;
        // The store has no conditions (OpenStack Swift): what is there now has to do.
        if (!(await this.mayReplace(key, replaceable))) return false;
        await send({});
      }
      return true;
    });
  }

  private async attempt<T>(what: string, permission: Permission, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if ((error as Error).name === 'AbortError') throw error;
      throw explain(error, what, permission, this.destination);
    }
  }
}

const CONTENT_TYPE = 'application/x-coredump';

/** False for a request that failed in an expected way. */
async function succeeds(request: Promise<unknown>, expected: (error: unknown) => boolean): Promise<boolean> {
  try {
    await request;
    return true;
  } catch (error) {
    if (expected(error)) return false;
    throw error;
  }
}

/** Memory in several pieces that is filled from front to back. */
class Scatter {
  readonly size: number;
  done = 0;
  private piece = 0;
  private at = 0;

  constructor(private readonly pieces: readonly Buffer[]) {
    this.size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  }

  /** Takes the next bytes; more than there is room for is an error of who sent them. */
  fill(chunk: Buffer): void {
    for (let from = 0; from < chunk.length;) {
      const piece = this.pieces[this.piece];
      if (!piece) throw new Error(`the answer is longer than the ${this.size} bytes that were asked for`);
      const copied = chunk.copy(piece, this.at, from);
      from += copied;
      this.at += copied;
      this.done += copied;
      if (this.at === piece.length) {
        this.piece++;
        this.at = 0;
      }
    }
  }
}

function factsOf(response: {
  ContentLength?: number | undefined;
  ETag?: string | undefined;
  LastModified?: Date | undefined;
  VersionId?: string | undefined;
  Metadata?: Record<string, string> | undefined;
}): ObjectFacts {
  return {
    size: BigInt(response.ContentLength ?? 0),
    etag: response.ETag ?? '',
    modified: response.LastModified ?? null,
    version: response.VersionId ?? null,
    metadata: response.Metadata ?? {},
  };
}

function changed(url: string, cause?: unknown): Failure {
  return new Failure(`${url} was replaced while it was read; run the command again`, { cause });
}

function checkedEndpoint(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : null;
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return endpoint;
  throw new Failure(`the endpoint ${endpoint} is not a URL; give one like https://HOST or http://HOST:PORT`);
}

function readAuthorities(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Failure(`cannot read ${path} (AWS_CA_BUNDLE): ${systemErrorReason(error)}`, { cause: error });
  }
}

/** As for the AWS CLI, keys in the environment come before a profile that it names; the SDK has it the other way and warns on stderr. */
function keysOfEnvironment(): Pick<S3ClientConfig, 'credentials'> {
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey, AWS_SESSION_TOKEN: sessionToken } = process.env;
  return accessKeyId && secretAccessKey ? { credentials: { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) } } : {};
}

/** HMAC keys: what Google's S3-compatible interface takes. */
async function googleCredentials(): Promise<{ accessKeyId: string; secretAccessKey: string }> {
  const { GS_ACCESS_KEY_ID: accessKeyId, GS_SECRET_ACCESS_KEY: secretAccessKey } = process.env;
  if (accessKeyId && secretAccessKey) return { accessKeyId, secretAccessKey };
  throw new Failure('gs:// needs an HMAC key; set GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY (Cloud Storage, Settings, Interoperability)');
}
