/** `push`, `pull`, `list` and images in object storage, against a real store, and through a proxy that makes it fail. */
import { execFileSync, spawn, type SpawnOptions } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from '@aws-sdk/client-s3';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { schemas } from '../../src/schemas/index.js';
import { missing } from '../support/cores.js';
import { FaultyProxy, owner, startStore, storePrograms, stranger, type Fault, type Seen, type TestStore } from '../support/object-store.js';
import { foreignCore, PAGE, prpsinfoNote, prstatusNote, warpImage } from '../support/synthesise.js';
import { firstVariant, lastTick, restoreProgram, startProgram } from './support/c-programs.js';
import { command, makeDirectory, mountTmpfs, node, projectFile } from './support/host.js';
import { compileJava } from './support/jvm.js';
import { writeKey } from './support/keys.js';
import { freePort, getJson, untilListening } from './support/network.js';
import { checkpointAndEnd, killAll, Program, run, warpTool } from './support/program.js';

const BUCKET = 'images';
const MIB = 1 << 20;

afterEach(killAll);

describe.skipIf(storePrograms)(`object storage (${storePrograms ?? 'of Ceph'})`, () => {
  let store: TestStore;
  let proxy: FaultyProxy;
  /** Three parts: two of 16 MiB and the rest. */
  let large: string;
  /** Fits into one request. */
  let small: string;
  let foreign: string;

  beforeAll(async () => {
    store = await startStore(BUCKET);
    proxy = await FaultyProxy.start(store.port);
    large = await writeImage('large', 40, 'Ünïcode');
    small = await writeImage('small', 1, 'small');
    foreign = join(makeDirectory(), 'core.1');
    const segments = [{ address: 0x10000n, size: BigInt(PAGE), content: Buffer.alloc(PAGE, 'foreign') }];
    writeFileSync(foreign, foreignCore({ segments, notes: [prstatusNote(100), prpsinfoNote(100, 'stranger')] }));
  });
  afterAll(async () => {
    await proxy?.stop();
    await store?.stop();
  });
  beforeEach(() => proxy.reset());

  /** An image with so many mebibytes of noise, a mebibyte to a segment. */
  async function writeImage(name: string, mebibytes: number, program: string): Promise<string> {
    const segments = Array.from({ length: mebibytes }, (_, index) => ({
      address: 0x1000_0000n + BigInt(index * 2 * MIB),
      size: BigInt(MIB),
      content: randomBytes(MIB),
    }));
    const record = {
      image_id: randomBytes(16),
      machine: 62,
      page_size: PAGE,
      generation: 3,
      realtime_ns: 1_700_000_000_123_456_789n,
      executable: Buffer.from(`/opt/${program}`),
    };
    const directory = join(makeDirectory(), name);
    mkdirSync(directory);
    writeFileSync(join(directory, 'core.img'), await warpImage({ segments, tables: { image: [record] } }));
    return directory;
  }

  const content = (image: string): Buffer => readFileSync(image.endsWith('core.1') ? image : join(image, 'core.img'));

  interface Result {
    status: number | null;
    signal: NodeJS.Signals | null;
    stdout: string;
    stderr: string;
  }

  function environment(extra: Record<string, string> = {}): Record<string, string> {
    return {
      HOME: '/nonexistent',
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_ENDPOINT_URL: proxy.endpoint,
      AWS_ACCESS_KEY_ID: owner.accessKeyId,
      AWS_SECRET_ACCESS_KEY: owner.secretAccessKey,
      ...extra,
    };
  }

  const startTool = (argv: string[], extra?: Record<string, string>): Program => warpTool(argv, { environment: environment(extra) });

  async function result(program: Program): Promise<Result> {
    const { code, signal } = await program.ended;
    return { status: code, signal, stdout: program.stdout, stderr: program.stderr };
  }

  /** Runs the command line as the test user, with the owner's credentials and the proxy as the store. */
  const tool = (...argv: string[]): Promise<Result> => result(startTool(argv));

  async function succeeds(...argv: string[]): Promise<string> {
    const { status, stdout, stderr } = await tool(...argv);
    expect([status, stderr], argv.join(' ')).toEqual([0, '']);
    return stdout;
  }

  /** The one line of a call that must fail. */
  async function failure(argv: string[], extra?: Record<string, string>): Promise<string> {
    const { status, stdout, stderr } = await result(startTool(argv, extra));
    expect([status, stdout], stderr).toEqual([2, '']);
    expect(stderr).toMatch(/^warp-tool: [^\n]+\n$/);
    return stderr;
  }

  const url = (key: string): string => `s3://${BUCKET}/${key}`;

  async function put(key: string, body: Buffer | string, metadata: Record<string, string> = {}): Promise<void> {
    await store.client.send(
      new PutObjectCommand({ Bucket: BUCKET, Key: key, Body: body, ContentLength: Buffer.byteLength(body), Metadata: metadata }),
    );
  }

  async function stored(key: string): Promise<Buffer> {
    const { Body } = await store.client.send(new GetObjectCommand({ Bucket: BUCKET, Key: key }));
    return Buffer.from(await Body!.transformToByteArray());
  }

  async function exists(key: string): Promise<boolean> {
    const { KeyCount } = await store.client.send(new ListObjectsV2Command({ Bucket: BUCKET, Prefix: key }));
    return KeyCount! > 0;
  }

  async function unfinishedUploads(): Promise<number> {
    return (await store.client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }))).Uploads?.length ?? 0;
  }

  const isPart = ({ method, path }: Seen): boolean => method === 'PUT' && path.includes('partNumber=');
  const isCompletion = ({ method, path }: Seen): boolean => method === 'POST' && path.includes('uploadId=');
  const isRead = ({ method, range }: Seen): boolean => method === 'GET' && range !== undefined;
  const busy: Fault = {
    answer: { status: 503, headers: { 'content-type': 'application/xml' }, body: '<Error><Code>SlowDown</Code></Error>' },
  };
  const replacement = Buffer.from('somebody else was faster');

  /** A rule for the first `times` requests that match. */
  function once(matches: (request: Seen) => boolean, fault: Fault, times = 1): FaultyProxy['rule'] {
    let left = times;
    return (request) => (matches(request) && left-- > 0 ? fault : undefined);
  }

  describe('push and pull', () => {
    it.each(['none', 'lz4'])('bring an image of the engine (compression %s) to another place, where it can be restored', async (codec) => {
      const { target } = await startProgram('memory_private', firstVariant());
      const image = await checkpointAndEnd(target, ['--compression', codec]);
      await succeeds('push', image, url(`engine/${codec}/`));
      expect(JSON.parse(await succeeds('list', url(`engine/${codec}`), '--json'))).toMatchObject({
        objects: [{ image: { program: 'memory_private', compression: codec, encrypted: false } }],
      });
      const back = join(makeDirectory(), 'back');
      await succeeds('pull', url(`engine/${codec}/`), back);
      expect(content(back).equals(content(image))).toBe(true);
      await restoreProgram(back, lastTick(target.stdout));
    });

    it('send an image in parts, with what it is beside it, and bring it back byte for byte', async () => {
      const pushed = JSON.parse(await succeeds('push', large, url('large'), '--json', '--parallel', '3'));
      const bytes = content(large);
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      expect(pushed).toMatchObject({
        url: url('large'),
        size: bytes.length,
        parts: 3,
        sha256,
        program: 'Ünïcode',
        generation: 3,
        format: '1.0',
      });
      expect(proxy.seen.filter(isPart)).toHaveLength(3);
      const head = await store.client.send(new HeadObjectCommand({ Bucket: BUCKET, Key: 'large' }));
      expect(head.ContentLength).toBe(bytes.length);
      expect(head.Metadata).toMatchObject({
        'warp-sha256': sha256,
        'warp-format': '1.0',
        'warp-id': pushed.id,
        'warp-metadata-size': String(pushed.metadata_size),
        'warp-program': encodeURIComponent('Ünïcode'),
      });
      expect((await stored('large')).equals(bytes)).toBe(true);
      expect(await unfinishedUploads()).toBe(0);

      const directory = join(makeDirectory(), 'a', 'b');
      const pulled = JSON.parse(await succeeds('pull', url('large'), directory, '--json', '--parallel', '64'));
      expect(pulled).toEqual({
        image: join(directory, 'core.img'),
        url: url('large'),
        size: bytes.length,
        etag: pushed.etag,
        sha256,
        verified: 'sha256',
      });
      expect(content(directory).equals(bytes)).toBe(true);
      expect(readdirSync(directory)).toEqual(['core.img']);
      for (const [name, document] of Object.entries({ push: pushed, pull: pulled })) {
        const check = new Ajv2020({ strict: false }).compile(schemas[name]!.json);
        check(document);
        expect(check.errors, name).toBeNull();
      }
    });

    it('take core files of other writers', async () => {
      await succeeds('push', foreign, url('foreign.core'));
      const file = join(makeDirectory(), 'back.img');
      expect(await succeeds('pull', url('foreign.core'), file)).toContain('SHA-256 as recorded by push');
      expect(readFileSync(file).equals(content(foreign))).toBe(true);
    });

    it('take keys as they stand', async () => {
      const key = "odd keys/späce & +%41?#'()*!/../~$,;=@.img";
      await succeeds('push', small, url(key));
      expect((await stored(key)).equals(content(small))).toBe(true);
      const directory = makeDirectory();
      await succeeds('pull', url(key), directory);
      expect(content(directory).equals(content(small))).toBe(true);
      const { objects } = JSON.parse(await succeeds('list', url('odd keys/'), '--json'));
      expect(objects).toMatchObject([{ key, url: url(key) }]);
    });

    it('work with gs:// and an HMAC key', async () => {
      const google = { GS_ENDPOINT_URL: proxy.endpoint, GS_ACCESS_KEY_ID: owner.accessKeyId, GS_SECRET_ACCESS_KEY: owner.secretAccessKey };
      const withoutAws = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '', AWS_ENDPOINT_URL: '' };
      const directory = makeDirectory();
      for (const argv of [
        ['push', small, `gs://${BUCKET}/google`],
        ['pull', `gs://${BUCKET}/google`, directory],
        ['show', `gs://${BUCKET}/google`],
      ]) {
        const { status, stderr } = await result(startTool(argv, { ...withoutAws, ...google }));
        expect([status, stderr]).toEqual([0, '']);
      }
      expect(content(directory).equals(content(small))).toBe(true);
      expect(await failure(['show', `gs://${BUCKET}/google`], { GS_ENDPOINT_URL: proxy.endpoint })).toMatch(
        /needs an HMAC key; set GS_ACCESS_KEY_ID/,
      );
    });
  });

  describe('what is there already', () => {
    it('is kept unless --force is given', async () => {
      await put('taken', replacement);
      for (const image of [small, large]) {
        expect(await failure(['push', image, url('taken')])).toMatch(/taken is there already; .*--force/);
        expect((await stored('taken')).equals(replacement)).toBe(true);
      }
      await succeeds('push', large, url('taken'), '--force');
      expect((await stored('taken')).equals(content(large))).toBe(true);

      const directory = makeDirectory();
      writeFileSync(join(directory, 'core.img'), replacement);
      expect(await failure(['pull', url('taken'), directory])).toMatch(/core\.img is there already; .*--force/);
      expect(content(directory).equals(replacement)).toBe(true);
      chmodSync(directory, 0o777);
      await succeeds('pull', url('taken'), directory, '--force');
      expect(content(directory).equals(content(large))).toBe(true);
    });

    it('is kept when it appears while the image is sent', async () => {
      const race = (key: string): Fault => ({ before: () => put(key, replacement) });
      proxy.reset(once(({ method }) => method === 'PUT', race('race-small')));
      expect(await failure(['push', small, url('race-small')])).toMatch(/is there already/);
      expect((await stored('race-small')).equals(replacement)).toBe(true);
      proxy.reset(once(isPart, race('race-large')));
      expect(await failure(['push', large, url('race-large')])).toMatch(/is there already/);
      expect((await stored('race-large')).equals(replacement)).toBe(true);
      expect(await unfinishedUploads()).toBe(0);
    });
  });

  it('a store without conditional requests is asked what it has', async () => {
    let conditional = 0;
    const refusal: Fault = { answer: { status: 501, body: '<Error><Code>NotImplemented</Code></Error>' } };
    // What OpenStack Swift answers.
    const rule = (before?: () => Promise<void>): FaultyProxy['rule'] => {
      conditional = 0;
      return ({ method }) => (method === 'PUT' && conditional++ === 0 ? { ...refusal, ...(before && { before }) } : undefined);
    };
    proxy.reset(rule());
    await succeeds('push', small, url('unconditional'));
    expect((await stored('unconditional')).equals(content(small))).toBe(true);
    proxy.reset(rule(() => put('unconditional-taken', replacement)));
    expect(await failure(['push', small, url('unconditional-taken')])).toMatch(/is there already/);
    expect((await stored('unconditional-taken')).equals(replacement)).toBe(true);
  });

  describe('a store or network that fails for a while', () => {
    it('delays push, and nothing else', async () => {
      let parts = 0;
      const faults: Record<number, Fault> = { 1: busy, 3: { loseAnswer: true }, 4: { ...busy, answer: { status: 500 } } };
      proxy.reset((request) => (isPart(request) ? faults[++parts] : undefined));
      await succeeds('push', large, url('delayed'));
      expect(proxy.seen.filter(isPart)).toHaveLength(3 + 3);
      expect((await stored('delayed')).equals(content(large))).toBe(true);
    });

    it('does not make push doubt an upload whose last answer was lost', async () => {
      proxy.reset(once(isCompletion, { loseAnswer: true }));
      await succeeds('push', large, url('lost-large'));
      expect((await stored('lost-large')).equals(content(large))).toBe(true);
      // Sent again, the request finds the object that the first one made.
      proxy.reset(once(({ method }) => method === 'PUT', { loseAnswer: true }));
      await succeeds('push', small, url('lost-small'));
      expect(proxy.seen.filter(({ method }) => method === 'PUT').length).toBe(2);
      expect((await stored('lost-small')).equals(content(small))).toBe(true);
      expect(await unfinishedUploads()).toBe(0);
    });

    it('delays pull: what broke off or stalled goes on where it stopped', async () => {
      await put('delays', content(large));
      const size = content(large).length;
      let reads = 0;
      const faults: Record<number, Fault> = {
        1: { breakAfter: 1000 },
        4: busy,
        5: { breakAfter: 3 * MIB },
        6: { stallAfter: 2 * MIB },
        8: { breakAfter: 0 },
      };
      proxy.reset((request) => (isRead(request) ? faults[++reads] : undefined));
      const directory = makeDirectory();
      await succeeds('pull', url('delays'), directory, '--timeout', '5', '--parallel', '4');
      expect(content(directory).equals(content(large))).toBe(true);
      expect(proxy.seen.filter(({ fault }) => fault && Object.values(faults).includes(fault))).toHaveLength(5);
      // The first mebibyte is read when the object is opened, and again with the others; nothing else comes twice.
      expect(proxy.bytes).toBeLessThan(size + 2 * MIB);
    });
  });

  describe('failure leaves nothing behind', () => {
    const nothing = async (key: string): Promise<void> => {
      expect([await exists(key), await unfinishedUploads()]).toEqual([false, 0]);
    };

    it('of a push whose parts are refused', async () => {
      proxy.reset((request) => (isPart(request) && /partNumber=3/.test(request.path) ? busy : undefined));
      expect(await failure(['push', large, url('refused')])).toMatch(
        /cannot write part 3 of s3:.*the store asks for fewer requests; try again later/,
      );
      await nothing('refused');
    });

    it('of a push whose completion is refused', async () => {
      proxy.reset((request) =>
        isCompletion(request) ? { answer: { status: 400, body: '<Error><Code>InvalidPart</Code></Error>' } } : undefined,
      );
      expect(await failure(['push', large, url('incomplete')])).toMatch(/cannot complete s3:.*InvalidPart/);
      await nothing('incomplete');
    });

    it.each(['SIGINT', 'SIGTERM'] as const)('of a push that %s ends', async (signal) => {
      proxy.reset((request) => (isPart(request) && /partNumber=[23]/.test(request.path) ? { hold: true } : undefined));
      const held = proxy.next((request) => request.fault?.hold === true);
      const push = startTool(['push', large, url('interrupted')]);
      await held;
      expect(await unfinishedUploads()).toBe(1);
      push.child.kill(signal);
      const { signal: diedOf, stdout, stderr } = await result(push);
      expect([diedOf, stdout, stderr]).toEqual([signal, '', 'warp-tool: interrupted; nothing was left behind\n']);
      await nothing('interrupted');
    });

    it('of a push whose upload cannot be removed: it says so', async () => {
      proxy.reset((request) => {
        if (request.method === 'DELETE') return { answer: { status: 403, body: '<Error><Code>AccessDenied</Code></Error>' } };
        return isPart(request) ? { answer: { status: 403, body: '<Error><Code>AccessDenied</Code></Error>' } } : undefined;
      });
      expect(await failure(['push', large, url('stuck')])).toMatch(
        /access denied; the credentials need s3:PutObject .*; and cannot remove the upload \S+ of s3:\S+stuck: access denied; the credentials need s3:AbortMultipartUpload/,
      );
      expect([await exists('stuck'), await unfinishedUploads()]).toEqual([false, 1]);
    });

    it('of a pull that breaks off for good, that is interrupted, or that may not write', async () => {
      await put('broken', content(large));
      const directory = makeDirectory();
      let opened = false;
      proxy.reset((request) => (isRead(request) && (opened || !(opened = true)) ? { breakAfter: 0 } : undefined));
      expect(await failure(['pull', url('broken'), directory])).toMatch(
        /at offset 0x[0-9a-f]+: the transfer broke off 5 times \(.*\); try again later/,
      );
      expect(readdirSync(directory)).toEqual([]);

      proxy.reset((request) => (request.range === `bytes=${8 * MIB}-${16 * MIB - 1}` ? { stallAfter: MIB } : undefined));
      const held = proxy.next((request) => request.fault?.stallAfter === MIB);
      const pull = startTool(['pull', url('broken'), directory]);
      await held;
      pull.child.kill('SIGINT');
      expect(await result(pull)).toMatchObject({
        signal: 'SIGINT',
        stdout: '',
        stderr: 'warp-tool: interrupted; nothing was left behind\n',
      });
      expect(readdirSync(directory)).toEqual([]);

      chmodSync(directory, 0o500);
      proxy.reset();
      expect(await failure(['pull', url('broken'), join(directory, 'x')])).toMatch(/cannot write .*permission denied/);
      expect(readdirSync(directory)).toEqual([]);
    });

    it('of a pull that finds no room', async (context) => {
      const tiny = mountTmpfs(16 * MIB);
      if (!tiny) return context.skip('a tiny file system cannot be mounted here');
      try {
        await put('roomy', content(large));
        expect(await failure(['pull', url('roomy'), tiny.directory])).toMatch(/cannot write .*core\.img: no space left on the device/);
        expect(readdirSync(tiny.directory)).toEqual([]);
      } finally {
        tiny.unmount();
      }
    });
  });

  describe('what is damaged', () => {
    const damaged = (image: string): Buffer => {
      const bytes = Buffer.from(content(image));
      bytes[bytes.length - 100]! ^= 1;
      return bytes;
    };

    it('is not pushed', async () => {
      const directory = makeDirectory();
      writeFileSync(join(directory, 'core.img'), damaged(large));
      expect(await failure(['push', directory, url('damaged')])).toMatch(
        /is damaged: chunk 39 .* has another hash than its index says; the content is damaged: copy the image again/,
      );
      writeFileSync(join(directory, 'core.img'), content(large).subarray(0, 20 * MIB));
      expect(await failure(['push', directory, url('damaged')])).toMatch(/is damaged: .*truncated/);
      expect(proxy.seen.filter(({ method }) => method !== 'HEAD')).toEqual([]);
    });

    it('is not pulled', async () => {
      const directory = makeDirectory();
      const recorded = { 'warp-sha256': createHash('sha256').update(content(large)).digest('hex') };
      await put('damaged-recorded', damaged(large), recorded);
      await put('damaged', damaged(large));
      await put('none', randomBytes(MIB));
      await put('empty', Buffer.alloc(0));
      expect(await failure(['pull', url('damaged-recorded'), directory])).toMatch(/is damaged: its SHA-256 is [0-9a-f]{64}, push recorded/);
      expect(await failure(['pull', url('damaged'), directory])).toMatch(/is damaged: chunk 39/);
      expect(await failure(['pull', url('none'), directory])).toMatch(/s3:\/\/images\/none: at offset 0x0: this is not an ELF file/);
      expect(await failure(['pull', url('empty'), directory])).toMatch(/s3:\/\/images\/empty: at offset 0x0: the file has 0 bytes/);
      expect(readdirSync(directory)).toEqual([]);
      await put('unrecorded', content(large));
      await put('unrecorded-foreign', content(foreign));
      expect(await succeeds('pull', url('unrecorded'), join(directory, 'a'))).toContain("verified by the image's own checksums");
      expect(await succeeds('pull', url('unrecorded-foreign'), join(directory, 'b'))).toContain('not verified');
    });

    it('is noticed when the object is replaced while it is read', async () => {
      const directory = makeDirectory();
      const replaced = /s3:\/\/images\/replaced was replaced while it was read; run the command again/;
      const replace: Fault = { before: () => put('replaced', content(small)) };
      for (const argv of [
        ['pull', url('replaced'), directory],
        ['validate', url('replaced')],
      ]) {
        await put('replaced', content(large));
        let reads = 0;
        proxy.reset((request) => (isRead(request) && ++reads === 3 ? replace : undefined));
        expect(await failure(argv)).toMatch(replaced);
        // A store that ignores the condition is found out by the ETag of its answer.
        reads = 0;
        await put('replaced', content(large));
        proxy.reset((request) => (isRead(request) && ++reads === 3 ? { headers: { etag: '"another"' } } : undefined));
        expect(await failure(argv)).toMatch(replaced);
      }
      expect(readdirSync(directory)).toEqual([]);
    });
  });

  describe('a checkpoint to the store, and a restore from it', () => {
    let stage: string;
    const isUpload = ({ method }: Seen): boolean => method === 'PUT';
    const refused: Fault = { answer: { status: 403, body: '<Error><Code>AccessDenied</Code></Error>' } };

    beforeEach(() => {
      stage = makeDirectory();
    });
    afterEach(() => expect(readdirSync(stage)).toEqual([]));

    const staged = (...argv: string[]): Program => startTool(argv, { TMPDIR: stage });

    async function restoredFrom(place: string, ...argv: string[]): Promise<Program> {
      const restored = staged('restore', place, ...argv);
      await restored.output(/^restored ok$/m);
      await restored.goesOn();
      expect(restored.stdout).not.toContain('FAIL');
      expect(readdirSync(stage)).toEqual([]);
      return restored;
    }

    it('bring a process from one generation to the next; the process is held until its image is there', async () => {
      const unfinished = await unfinishedUploads();
      const { target } = await startProgram('memory_private', firstVariant());
      let atUpload: unknown;
      proxy.reset((request) => (isUpload(request) ? { before: async () => void (atUpload = target.child.signalCode) } : undefined));
      const taken = await result(staged('checkpoint', String(target.pid), '--to', url('live/'), '--json'));
      expect([taken.status, taken.stderr, atUpload]).toEqual([0, '', null]);
      expect(JSON.parse(taken.stdout)).toEqual({
        image: url('live/core.img'),
        bytes: (await stored('live/core.img')).length,
        generation: 0,
      });
      expect(await target.ended).toMatchObject({ signal: 'SIGKILL' });
      proxy.reset();
      const second = await restoredFrom(url('live/'));
      const ticked = lastTick(target.stdout);
      expect(Number(/^tick (\d+)$/m.exec(second.stdout)![1])).toBe(ticked + 1);
      // In the place of the first, and compressed, so that it is loaded while the program runs.
      const again = await result(staged('checkpoint', String(second.pid), '--to', url('live/'), '--compression', 'lz4'));
      expect([again.status, again.stderr]).toEqual([0, '']);
      expect(await second.ended).toMatchObject({ signal: 'SIGKILL' });
      const shown = JSON.parse(await succeeds('show', url('live/'), '--json'));
      expect(shown).toMatchObject({ generation: 1 });
      await restoredFrom(url('live/'), '--load-concurrency', '1');
      expect(await unfinishedUploads()).toBe(unfinished);
    });

    it('leave a process running that is to be', async () => {
      const { target } = await startProgram('memory_private', firstVariant());
      const { status, stderr } = await result(staged('checkpoint', String(target.pid), '--to', url('left'), '--leave-running'));
      expect([status, stderr]).toEqual([0, '']);
      await target.goesOn();
      await restoredFrom(url('left'));
    });

    it.each<[string, Record<string, string>, FaultyProxy['rule'], RegExp]>([
      [
        'may not be written to',
        { AWS_ACCESS_KEY_ID: stranger.accessKeyId, AWS_SECRET_ACCESS_KEY: stranger.secretAccessKey },
        () => undefined,
        /cannot write s3:\/\/images\/refused: access denied; the credentials need s3:PutObject/,
      ],
      ['is not there', { AWS_ENDPOINT_URL: 'http://127.0.0.1:1' }, () => undefined, /nothing listens at http:\/\/127\.0\.0\.1:1/],
      [
        'then takes no image',
        {},
        (request) => (isUpload(request) ? refused : undefined),
        /cannot write s3:\/\/images\/refused: access denied/,
      ],
    ])('do no harm when the store %s', async (_, extra, rule, message) => {
      const { target } = await startProgram('memory_private', firstVariant());
      proxy.reset(rule);
      for (const more of [[], ['--leave-running']]) {
        const argv = ['checkpoint', String(target.pid), '--to', url('refused'), ...more];
        expect(await failure(argv, { TMPDIR: stage, ...extra })).toMatch(message);
        await target.goesOn();
      }
      proxy.reset();
      expect(await exists('refused')).toBe(false);
    });

    it('of an encrypted image, of which the store sees nothing', async () => {
      const key = ['--encryption-key-file', writeKey(randomBytes(32).toString('hex'))];
      const { target, scratch } = await startProgram('memory_private', firstVariant());
      const taken = await result(staged('checkpoint', String(target.pid), '--to', url('sealed'), '--compression', 'lz4', ...key));
      expect([taken.status, taken.stderr]).toEqual([0, '']);
      const sealed = await stored('sealed');
      for (const word of [scratch, 'memory_private', '/proc/', 'LD_PRELOAD']) expect(sealed.includes(word)).toBe(false);
      const without = await result(staged('restore', url('sealed')));
      expect(without).toMatchObject({
        status: 2,
        stderr: expect.stringMatching(/^warp-restore: s3:\/\/images\/sealed: [^\n]*encrypted[^\n]*\n$/),
      });
      const second = await restoredFrom(url('sealed'), ...key);
      // In its place, by a key that is a pipe: read once, by the engine's client.
      const argv = ['checkpoint', String(second.pid), '--to', url('sealed')];
      const piped = ['-c', 'exec "$@" --encryption-key-file <(cat "$0")', key[1]!, node(), projectFile('bin/run.js'), ...argv];
      const again = await result(run('/bin/bash', piped, { environment: environment({ TMPDIR: stage }) }));
      expect([again.status, again.stderr]).toEqual([0, '']);
      expect(JSON.parse(await succeeds('show', url('sealed'), '--json', ...key))).toMatchObject({ generation: 1 });
      await restoredFrom(url('sealed'), ...key);
    });

    it.skipIf(process.geteuid!() !== 0)('as root, of a process of another user', async () => {
      const { target } = await startProgram('memory_private', firstVariant());
      const argv = [projectFile('bin/run.js'), 'checkpoint', String(target.pid), '--to', url('by-root')];
      const options: SpawnOptions = {
        env: { PATH: process.env['PATH'], ...environment({ TMPDIR: stage }) },
        stdio: ['ignore', 'pipe', 'pipe'],
      };
      proxy.reset((request) => (isUpload(request) ? refused : undefined));
      const refusal = await result(new Program(spawn(node(), argv, options)));
      expect(refusal).toMatchObject({
        status: 2,
        stderr: expect.stringMatching(/^warp-tool: cannot write s3:[^\n]*access denied[^\n]*\n$/),
      });
      await target.goesOn();
      proxy.reset();
      const taken = await result(new Program(spawn(node(), argv, options)));
      expect([taken.status, taken.stderr]).toEqual([0, '']);
      expect(await target.ended).toMatchObject({ signal: 'SIGKILL' });
      await restoredFrom(url('by-root'));
    });

    it.skipIf(missing('java', 'javac'))('of a Java application, which is told once, and goes on when the store refuses', async () => {
      const [port, log] = [await freePort(), join(makeDirectory(), 'log')];
      const classes = compileJava('crac/Crac', 'crac/Web');
      const target = warpTool(['run', '--', command('java')!, '-Xmx128m', '-cp', classes, 'Web', String(port), log], { stdin: 'pipe' });
      await target.output(/^ready \d+$/m);
      const around = ['before listener', 'before log', 'after log', 'after listener'];
      const events = async (): Promise<string[]> => {
        await untilListening(port);
        return (await getJson<{ events: string[] }>(port)).events;
      };
      const argv = ['checkpoint', String(target.pid), '--to', url('java/')];
      // Held, it says nothing; refused, it goes on.
      let logged: string | undefined;
      proxy.reset((request) =>
        isUpload(request) ? { ...refused, before: async () => void (logged = readFileSync(log, 'utf8')) } : undefined,
      );
      expect(await failure(argv, { TMPDIR: stage })).toMatch(/cannot write [^\n]*access denied/);
      expect(await events()).toEqual(around);
      expect([logged, readFileSync(log, 'utf8')]).toEqual(['', 'restored\n']);
      proxy.reset();
      const taken = await result(startTool(argv, { TMPDIR: stage }));
      expect([taken.status, taken.stderr]).toEqual([0, '']);
      expect(await target.ended).toMatchObject({ signal: 'SIGKILL' });
      const restored = staged('restore', url('java/'));
      expect(await events()).toEqual([...around, ...around]);
      await restored.kill();
    });

    it('do no harm when they are interrupted', async () => {
      const { target } = await startProgram('memory_private', firstVariant());
      for (const signal of ['SIGTERM', 'SIGINT'] as const) {
        proxy.reset((request) => (isUpload(request) ? { hold: true } : undefined));
        const held = proxy.next((request) => request.fault?.hold === true);
        const taking = staged('checkpoint', String(target.pid), '--to', url('interrupted'));
        await held;
        expect(readdirSync(stage)).toHaveLength(1);
        taking.child.kill(signal);
        expect((await result(taking)).signal).toBe(signal);
        await target.goesOn();
        expect(readdirSync(stage)).toEqual([]);
      }
      proxy.reset();
      expect(await exists('interrupted')).toBe(false);
      await put('interrupted', content(large));
      proxy.reset((request) => (isRead(request) && request.range?.startsWith(`bytes=${8 * MIB}-`) ? { stallAfter: MIB } : undefined));
      const stalled = proxy.next((request) => request.fault?.stallAfter === MIB);
      const restoring = staged('restore', url('interrupted'));
      await stalled;
      restoring.child.kill('SIGTERM');
      expect(await result(restoring)).toMatchObject({ signal: 'SIGTERM', stderr: 'warp-tool: interrupted; nothing was left behind\n' });
    });

    it('keep the image where it is all that remains of its process', async () => {
      const { target } = await startProgram('memory_private', firstVariant());
      proxy.reset((request) => (isUpload(request) ? { ...refused, before: () => target.kill() } : undefined));
      const message = await failure(['checkpoint', String(target.pid), '--to', url('kept')], { TMPDIR: stage });
      const [, path, directory] = /has ended and its image is (\S+): send that with `warp-tool push (\S+) s3:\/\/images\/kept`/.exec(
        message,
      )!;
      expect(path).toBe(join(directory!, 'core.img'));
      proxy.reset();
      await succeeds('push', directory!, url('kept'));
      rmSync(directory!, { recursive: true });
      await restoredFrom(url('kept'));
    });

    it('say in one line what there is no image of', async () => {
      expect(await failure(['restore', url('none-such')])).toMatch(/there is no such object; see/);
      await put('no-image', 'no image');
      expect(await failure(['restore', url('no-image')], { TMPDIR: stage })).toMatch(
        /s3:\/\/images\/no-image: at offset 0x0: this is not an ELF|8 bytes/,
      );
      await put('foreign', content(foreign));
      expect((await result(staged('restore', url('foreign')))).stderr).toMatch(/^warp-restore: s3:\/\/images\/foreign: [^\n]+\n$/);
      for (const engine of ['simengine', 'pauseengine', 'criu']) {
        expect(await failure(['checkpoint', '1', '--to', url('x'), '--engine', engine])).toMatch(
          /does not write to s3:.*; give a local directory/,
        );
        expect(await failure(['restore', url('x'), '--engine', engine])).toMatch(/s3:\S+ is not a local directory; /);
      }
      expect(await failure(['run', '--image', url('x'), '--', 'true'])).toMatch(/is not a local directory; /);
    });

    it('are what run --or-restore does, under policies too', async () => {
      const started = await startProgram('memory_private', firstVariant());
      const rules = join(makeDirectory(), 'rules');
      writeFileSync(rules, 'type: file\npath: /**\naction: error\n');
      const argv = ['run', '--or-restore', url('either'), '--policies', rules, '--'];
      const first = staged(...argv, '/bin/echo', 'started');
      expect(await first.ended).toMatchObject({ code: 0 });
      expect([first.stdout, first.stderr]).toEqual([
        'started\n',
        expect.stringMatching(/^warp-tool: \/bin\/echo is started: .*no such object; see/),
      ]);
      const { status } = await result(staged('checkpoint', String(started.target.pid), '--to', url('either')));
      expect(status).toBe(0);
      const restored = staged(...argv, '/bin/echo', 'started');
      await restored.output(/^restored ok$/m);
      await restored.goesOn();
      await restored.kill();
      const host = JSON.parse(await succeeds('validate', url('either'), '--host', '--policies', rules, '--json'));
      expect(host.host.restorable).toBe(true);
      writeFileSync(rules, 'type: filedescriptor\nvalue: 1\naction: error\n');
      const refusing = await result(startTool(['validate', url('either'), '--host', '--policies', rules, '--json']));
      expect([refusing.status, JSON.parse(refusing.stdout).host.restorable]).toEqual([1, false]);
      const under = staged(...argv, '/bin/echo', 'started');
      expect(await under.ended).toMatchObject({ code: 0 });
      expect(under.stderr).toMatch(/^warp-tool: \/bin\/echo is started: .*either/);
    });

    it('of an optimised image, which takes its own place or another', async () => {
      const { target, scratch } = await startProgram('memory_accesses', firstVariant());
      const image = await checkpointAndEnd(target, ['--compression', 'lz4', '--chunk-size', '64']);
      await succeeds('push', image, url('trained/'));
      const until = ['--until', `rm ${join(scratch, 'done')} 2>/dev/null`];
      const optimised = await result(staged('optimize', url('trained/'), '--runs', '1', ...until, '--json'));
      expect([optimised.status, optimised.stderr]).toEqual([0, '']);
      expect(JSON.parse(optimised.stdout)).toMatchObject({ image: url('trained/'), runs: 1, ended_by: ['condition'] });
      rmSync(join(scratch, 'done'), { force: true });
      expect(await succeeds('show', url('trained/'))).toMatch(/optimised +1 run needed/);
      const other = await result(staged('optimize', image, '--runs', '1', ...until, '-o', url('other'), '--json'));
      expect([other.status, other.stderr]).toEqual([0, '']);
      expect(await succeeds('show', image)).not.toContain('optimised');
      expect(await succeeds('show', url('other'))).toMatch(/optimised +1 run needed/);
      await restoredFrom(url('trained/'));
      // What was trained is not lost with the way into the store, and takes no place of what came there meanwhile.
      const trained = await stored('trained/core.img');
      rmSync(join(scratch, 'done'), { force: true });
      for (const [rule, reason, left] of [
        [(request: Seen) => (isUpload(request) ? refused : undefined), 'access denied', trained],
        [
          once(isUpload, { before: () => put('trained/core.img', content(large)) }),
          'trained/core.img was replaced or removed by somebody else meanwhile; ',
          content(large),
        ],
      ] as const) {
        await put('trained/core.img', trained);
        proxy.reset(rule);
        const argv = ['optimize', url('trained/'), '--runs', '1', ...until];
        const message = await failure(argv, { TMPDIR: stage });
        expect(message).toContain(reason);
        const [, kept, directory] =
          /the optimised image is (\S+): send that with `warp-tool push (\S+) s3:\/\/images\/trained\/ --force`/.exec(message)!;
        expect(kept).toBe(join(directory!, 'core.img'));
        expect(Buffer.compare(await stored('trained/core.img'), left)).toBe(0);
        proxy.reset();
        await succeeds('push', directory!, url('sent'), '--force');
        expect(await succeeds('show', url('sent'))).toMatch(/optimised +1 run needed/);
        rmSync(directory!, { recursive: true });
      }
      // Nothing is trained for a store that does not take it.
      proxy.reset(({ method }) => (method === 'POST' ? refused : undefined));
      expect(await failure(['optimize', image, '--runs', '1', '--until', 'false', '-o', url('refused')])).toMatch(
        /cannot write s3:.*access denied/,
      );
    });
  });

  describe('commands that look into an image', () => {
    it('tell the same of a URL as of the file, and read no more than they need', async () => {
      const image = await writeImage('inspected', 60, 'inspected');
      const bytes = content(image);
      await put('inspected/core.img', bytes);
      const remote = url('inspected/');
      const metadata = Number(bytes.readBigUInt64LE(64 + 16));
      expect(metadata).toBeLessThan(MIB);
      const calls: [string[], number][] = [
        [['show'], 1],
        [['threads', '--registers'], 1],
        [['maps'], 1],
        [['fds'], 1],
        [['signals'], 1],
        [['notes'], 1],
        [['auxv'], 1],
        [['mem', '0x14000000:4096'], 3],
        [['mem', '--extract', '0x10000000-0x10080000', '-o', join(makeDirectory(), 'x')], 3],
      ];
      for (const [[name, ...rest], mebibytes] of calls) {
        const local = JSON.parse(await succeeds(name!, image, ...rest, '--json'));
        proxy.reset();
        const document = JSON.parse(await succeeds(name!, remote, ...rest, '--json'));
        expect(document).toEqual({ ...local, image: `${remote}core.img` });
        expect(proxy.bytes, name).toBeLessThanOrEqual(mebibytes * MIB);
        expect(proxy.seen.length, name).toBeLessThanOrEqual(2);
      }
      proxy.reset();
      expect(JSON.parse(await succeeds('validate', remote, '--json'))).toMatchObject({
        valid: true,
        checked: { chunks: 60, content: 60 * MIB },
      });
      // Reading on and on is done in large requests, and nothing comes twice.
      expect(proxy.bytes).toBeLessThanOrEqual(bytes.length);
      expect(proxy.seen.length).toBeLessThanOrEqual(60 / 8 + 4);
      expect(await succeeds('diff', image, remote, '--memory')).toMatch(/^no difference$/m);
      expect(JSON.parse(await succeeds('validate', remote, '--json')).image).toBe(`${remote}core.img`);
    });

    it('make other images of one that is far away', async () => {
      await put('source/core.img', content(large));
      const remote = url('source/');
      const directory = makeDirectory();
      const document = join(directory, 'document.json');
      await succeeds('decode', remote, '-o', document);
      expect(JSON.parse(readFileSync(document, 'utf8')).source.path).toBe(`${remote}core.img`);
      await succeeds('encode', document, '-o', join(directory, 'encoded'));
      expect(content(join(directory, 'encoded')).equals(content(large))).toBe(true);
      await succeeds('redact', large, '-o', join(directory, 'local'));
      await succeeds('redact', remote, '-o', join(directory, 'remote'));
      expect(content(join(directory, 'remote')).equals(content(join(directory, 'local')))).toBe(true);
      // From one store to another.
      await succeeds('push', remote, url('copied'));
      expect((await stored('copied')).equals(content(large))).toBe(true);
    });

    it('survive a store that fails for a while', async () => {
      await put('flaky', content(large));
      let reads = 0;
      proxy.reset((request) => (isRead(request) && ++reads % 2 === 1 ? { breakAfter: 700_000 } : undefined));
      expect(JSON.parse(await succeeds('validate', url('flaky'), '--json'))).toMatchObject({ valid: true, checked: { content: 40 * MIB } });
      expect(proxy.seen.filter(({ fault }) => fault?.breakAfter).length).toBeGreaterThan(3);
    });

    it('leave no local copy behind when they are interrupted', async () => {
      await put('copied', content(large));
      proxy.reset((request) => (request.range?.startsWith(`bytes=${4 * MIB}-`) ? { stallAfter: MIB } : undefined));
      const held = proxy.next((request) => request.fault?.stallAfter === MIB);
      const directory = makeDirectory();
      const stacks = startTool(['threads', url('copied'), '--stack'], { TMPDIR: directory });
      await held;
      expect(readdirSync(directory)).toHaveLength(1);
      stacks.child.kill('SIGTERM');
      proxy.reset();
      await result(stacks);
      expect(readdirSync(directory)).toEqual([]);
    });

    it.skipIf(!command('gdb'))('let GDB see a local copy', async () => {
      const { target } = await startProgram('tls', firstVariant());
      const image = await checkpointAndEnd(target);
      await succeeds('push', image, url('gdb/'));
      const stacks = (document: string): unknown => JSON.parse(document).threads;
      expect(stacks(await succeeds('threads', url('gdb/'), '--stack', '--json'))).toEqual(
        stacks(await succeeds('threads', image, '--stack', '--json')),
      );
      const { status, stdout } = await tool('gdb', url('gdb/'), '--', '-batch', '-ex', 'info threads');
      expect([status, stdout]).toEqual([0, expect.stringMatching(/Thread 0x|LWP/)]);
      expect(await failure(['gdb-script', url('gdb/')])).toMatch(/GDB opens local files only; get it with `warp-tool pull` first/);
    });
  });

  describe('list', () => {
    it('tells what images are, however they came there', async () => {
      await succeeds('push', small, url('list/pushed.img'));
      await put('list/copied.img', content(small));
      await put('list/core', content(foreign));
      await put('list/notes.txt', 'no image');
      await put('list/large.bin', randomBytes(MIB));
      await put('list/folder/', '');
      const document = JSON.parse(await succeeds('list', url('list/'), '--json'));
      const check = new Ajv2020({ strict: false }).compile(schemas['list']!.json);
      check(document);
      expect(check.errors).toBeNull();
      const facts = {
        program: 'small',
        format: '1.0',
        generation: 3,
        compression: 'none',
        encrypted: false,
        captured_at: '2023-11-14T22:13:20.123456789Z',
      };
      expect(document).toMatchObject({
        url: url('list/'),
        objects: [
          { key: 'list/copied.img', size: content(small).length, image: facts },
          { key: 'list/core', image: { program: 'stranger', format: null } },
          { key: 'list/folder/', size: 0, image: null },
          { key: 'list/large.bin', size: MIB, image: null },
          { key: 'list/notes.txt', image: null },
          { key: 'list/pushed.img', image: facts },
        ],
      });
      const { status, stdout, stderr } = await tool('list', url('list/'));
      expect(status).toBe(0);
      expect(stdout).toMatch(/^ *1\.0\d MiB  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  small +3  2023-11-14 22:13:20  none +list\/pushed\.img$/m);
      expect(stderr).toMatch(/^6 objects, /);
      proxy.reset();
      const quick = JSON.parse(await succeeds('list', url('list/'), '--quick', '--json'));
      expect(quick.objects.map(({ key, image }: { key: string; image: unknown }) => [key, image])).toEqual(
        document.objects.map(({ key }: { key: string }) => [key, null]),
      );
      expect(proxy.seen).toHaveLength(1);
    });

    it('goes through all pages, and takes any key', async () => {
      const keys = Array.from({ length: 1005 }, (_, index) => `pages/${String(index).padStart(4, '0')}`);
      keys.push('pages/a+b c%20\u0001\nü');
      for (let at = 0; at < keys.length; at += 50) await Promise.all(keys.slice(at, at + 50).map((key) => put(key, 'x')));
      const { objects } = JSON.parse(await succeeds('list', url('pages/'), '--json', '--quick'));
      expect(objects.map(({ key }: { key: string }) => key)).toEqual(keys);
      expect((await tool('list', url('pages/a'), '--quick')).stdout).toContain('pages/a+b c%20\\x01\\nü');
    });

    it('goes on behind an object that cannot be read, and tells', async () => {
      await put('partly/a', content(small));
      await put('partly/b', content(small));
      proxy.reset((request) =>
        request.path.includes('partly/a') ? { answer: { status: 403, body: '<Error><Code>InvalidObjectState</Code></Error>' } } : undefined,
      );
      const { status, stdout, stderr } = await tool('list', url('partly/'));
      expect(status).toBe(2);
      expect(stdout).toMatch(/ - +partly\/a\n.* small .*partly\/b\n/);
      expect(stderr).toMatch(/partly\/a: the object is archived and cannot be read; restore it from the archive first/);
    });

    it('of nothing is empty', async () => {
      expect(JSON.parse(await succeeds('list', url('no/such/'), '--json'))).toEqual({ url: url('no/such/'), objects: [] });
    });
  });

  describe('errors', () => {
    const show = ['show', url('none-such')];
    const error = (code: string, more = ''): string =>
      `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}</Message>${more}</Error>`;

    it.each<[string, string[], Record<string, string>, RegExp]>([
      ['no object', show, {}, /cannot read s3:\/\/images\/none-such: there is no such object; see `warp-tool list s3:\/\/images\/`/],
      ['no object to pull', ['pull', 's3://images/', '/tmp'], {}, /images\/core\.img: there is no such object/],
      ['no bucket', ['list', 's3://no-bucket'], {}, /there is no bucket s3:\/\/no-bucket at http:.*; check the name and the endpoint/],
      ['no bucket to push to', ['push', 'IMAGE', 's3://no-bucket/x'], {}, /there is no bucket s3:\/\/no-bucket/],
      [
        'no access',
        ['list', 's3://images'],
        { AWS_ACCESS_KEY_ID: stranger.accessKeyId, AWS_SECRET_ACCESS_KEY: stranger.secretAccessKey },
        /access denied; the credentials need s3:ListBucket/,
      ],
      [
        'no right to write',
        ['push', 'IMAGE', 's3://images/x'],
        { AWS_ACCESS_KEY_ID: stranger.accessKeyId, AWS_SECRET_ACCESS_KEY: stranger.secretAccessKey },
        /access denied/,
      ],
      ['an unknown key', show, { AWS_ACCESS_KEY_ID: 'NOBODY' }, /does not know the access key; check AWS_ACCESS_KEY_ID/],
      [
        'a wrong secret',
        ['push', 'IMAGE', 's3://images/x'],
        { AWS_SECRET_ACCESS_KEY: 'wrong' },
        /the secret key does not fit the access key/,
      ],
      [
        'no credentials',
        show,
        { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' },
        /no credentials: .*; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE/,
      ],
      [
        'an unknown profile',
        show,
        { AWS_PROFILE: 'nobody', AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' },
        /no credentials in profile nobody: /,
      ],
      [
        'nobody there',
        show,
        { AWS_ENDPOINT_URL: 'http://127.0.0.1:1' },
        /nothing listens at http:\/\/127\.0\.0\.1:1; check AWS_ENDPOINT_URL/,
      ],
      [
        'no such host',
        show,
        { AWS_ENDPOINT_URL: 'http://no-such-host.invalid' },
        /the name of http:\/\/no-such-host\.invalid cannot be resolved/,
      ],
      ['no endpoint', show, { AWS_ENDPOINT_URL: 'localhost:9000' }, /the endpoint localhost:9000 is not a URL; give one like/],
      ['no place', ['list', '/tmp'], {}, /\/tmp is not a place in an object store; give s3:\/\/BUCKET\/KEY/],
      ['no bucket in the URL', ['list', 's3:///x'], {}, /names no bucket/],
      [
        'another scheme',
        ['show', 'http://host/x'],
        {},
        /http:\/\/ is not known; give a directory, a core file, or an s3:\/\/ or gs:\/\/ URL/,
      ],
      ['a key that is too long', ['show', `s3://images/${'x'.repeat(1025)}`], {}, /the key has 1025 bytes; object stores take up to 1024/],
    ])('%s', async (_, argv, extra, message) => {
      const called = argv.map((word) => (word === 'IMAGE' ? small : word));
      expect(await failure(called, extra)).toMatch(message);
    });

    // What AWS answers and the store of the tests never does.
    it.each<[string, NonNullable<Fault['answer']>, RegExp]>([
      [
        'another region',
        { status: 301, headers: { 'x-amz-bucket-region': 'eu-west-3' }, body: error('PermanentRedirect') },
        /the bucket is in region eu-west-3, the request went to us-east-1; set AWS_REGION=eu-west-3/,
      ],
      [
        'a region in the signature',
        { status: 400, body: error('AuthorizationHeaderMalformed', '<Region>eu-west-3</Region>') },
        /the bucket is in region eu-west-3/,
      ],
      ['credentials that have expired', { status: 400, body: error('ExpiredToken') }, /the credentials have expired/],
      ['a clock that is wrong', { status: 403, body: error('RequestTimeTooSkewed') }, /this host's clock is too far from the store's/],
      [
        'a web server',
        { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>hello</html>' },
        /does not answer as an object store does|did not answer with the range/,
      ],
      [
        'a failure that stays',
        { status: 500, body: error('InternalError') },
        /the store failed 5 times \(status 500, InternalError\); try again later/,
      ],
    ])('%s', async (_, answer, message) => {
      proxy.reset(() => ({ answer }));
      expect(await failure(show)).toMatch(message);
    });

    it('a store that does not answer', async () => {
      proxy.reset(() => ({ hold: true }));
      expect(await failure(['list', 's3://images', '--timeout', '1'])).toMatch(
        /http:\S+ does not answer; check the network and AWS_ENDPOINT_URL/,
      );
    });

    it.skipIf(missing('openssl'))('a certificate that is not trusted, until its authority is', async () => {
      const directory = makeDirectory();
      const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
      execFileSync(
        'openssl',
        [
          'req',
          '-x509',
          '-newkey',
          'rsa:2048',
          '-nodes',
          '-days',
          '2',
          '-subj',
          '/CN=localhost',
          '-addext',
          'subjectAltName=IP:127.0.0.1',
          '-keyout',
          key,
          '-out',
          cert,
        ],
        { stdio: 'ignore' },
      );
      const secure = await FaultyProxy.start(store.port, { key: readFileSync(key), cert: readFileSync(cert) });
      try {
        await put('secure', content(small));
        const argv = ['show', url('secure')];
        expect(await failure(argv, { AWS_ENDPOINT_URL: secure.endpoint })).toMatch(
          /the certificate of https:\S+ is not trusted \(\w+\); give its authority in AWS_CA_BUNDLE/,
        );
        expect(await failure(argv, { AWS_ENDPOINT_URL: secure.endpoint, AWS_CA_BUNDLE: '/no/such' })).toMatch(
          /cannot read \/no\/such \(AWS_CA_BUNDLE\): no such file/,
        );
        const trusted = await result(startTool(argv, { AWS_ENDPOINT_URL: secure.endpoint, AWS_CA_BUNDLE: cert }));
        expect(trusted).toMatchObject({ status: 0, stderr: '' });
        expect(await failure(argv, { AWS_ENDPOINT_URL: secure.endpoint.replace('https', 'http') })).toMatch(/cannot read s3:/);
        expect(await failure(argv, { AWS_ENDPOINT_URL: proxy.endpoint.replace('http', 'https') })).toMatch(
          /does not speak TLS; use http:\/\//,
        );
      } finally {
        await secure.stop();
      }
    });
  });

  describe('configuration', () => {
    it('comes from shared files and profiles, as for the AWS CLI, or from flags', async () => {
      await put('configured', content(small));
      const directory = makeDirectory();
      writeFileSync(
        join(directory, 'credentials'),
        `[work]\naws_access_key_id = ${owner.accessKeyId}\naws_secret_access_key = ${owner.secretAccessKey}\n`,
      );
      writeFileSync(join(directory, 'config'), `[profile work]\nregion = eu-central-1\nendpoint_url = ${proxy.endpoint}\n`);
      const files = {
        AWS_SHARED_CREDENTIALS_FILE: join(directory, 'credentials'),
        AWS_CONFIG_FILE: join(directory, 'config'),
        AWS_ENDPOINT_URL: '',
        AWS_ACCESS_KEY_ID: '',
        AWS_SECRET_ACCESS_KEY: '',
      };
      const ok = { status: 0, stderr: expect.not.stringContaining('warp-tool:') };
      expect(await result(startTool(['show', url('configured')], { ...files, AWS_PROFILE: 'work' }))).toMatchObject(ok);
      expect(await result(startTool(['list', url('configured'), '--profile', 'work'], files))).toMatchObject(ok);
      expect(
        await result(startTool(['list', url('configured'), '--endpoint', proxy.endpoint], { AWS_ENDPOINT_URL: 'http://127.0.0.1:1' })),
      ).toMatchObject(ok);
      expect(
        await result(
          startTool(['list', url('configured')], { AWS_ENDPOINT_URL_S3: proxy.endpoint, AWS_ENDPOINT_URL: 'http://127.0.0.1:1' }),
        ),
      ).toMatchObject(ok);
    });

    it('does not slow down commands that need no store: the SDK is loaded when it is needed', async () => {
      const hook = join(makeDirectory(), 'hook.cjs');
      const told =
        "process.on('exit', () => process.stderr.write(String(Object.keys(require.cache).some((file) => file.endsWith('sdk.cjs')))));";
      writeFileSync(hook, told);
      await put('loaded', content(small));
      for (const [image, loaded] of [
        [small, 'false'],
        [url('loaded'), 'true'],
      ]) {
        const { status, stderr } = await result(startTool(['show', image!], { NODE_OPTIONS: `--require=${hook}` }));
        expect([status, stderr]).toEqual([0, loaded]);
      }
    });
  });
});
