/** The engine's cryptography, in C under sanitizers: published vectors, and whatever Node.js (OpenSSL) computes. */
import { spawnSync } from 'node:child_process';
import { createCipheriv, createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'warp-tool-crypto-'));
const program = join(directory, 'crypto_check');
let sanitizers = true;
let implementations: string[] = [];

beforeAll(() => {
  const sources = [
    'test/native/crypto_check.c',
    ...[
      'base/aes_gcm.c',
      'base/sha256.c',
      'base/base.c',
      'base/xxh64.c',
      'arch/x86_64/aes.c',
      'arch/x86_64/arch.c',
      'arch/x86_64/entry.S',
    ].map((file) => `native/src/${file}`),
  ].map((file) => join(root, file));
  const flags = ['-std=gnu17', '-Wall', '-Wextra', '-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
  const compiled = spawnSync(process.env['CC'] ?? 'cc', [...flags, '-o', program, ...sources], { encoding: 'utf8' });
  if (/cannot find -l(?:a|ub)san|libasan|libubsan/.test(compiled.stderr)) {
    sanitizers = false;
    return;
  }
  expect(compiled.stderr).toBe('');
  implementations = spawnSync(program, { encoding: 'utf8' }).stdout.trim().split('\n');
}, 120_000);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const digits = (bytes: Buffer): string => (bytes.length === 0 ? '-' : bytes.toString('hex'));

/** One answer for each question. */
function ask(questions: string[]): string[] {
  const result = spawnSync(program, ['-'], { encoding: 'utf8', input: questions.map((one) => `${one}\n`).join(''), maxBuffer: 1 << 28 });
  expect([result.status, result.stderr]).toEqual([0, '']);
  return result.stdout.trimEnd().split('\n');
}

describe('published vectors', () => {
  it('SHA-256 (FIPS 180-4), HMAC (RFC 4231), HKDF (RFC 5869)', ({ skip }) => {
    if (!sanitizers) skip('this compiler has no sanitizers installed');
    const ascii = (text: string): string => digits(Buffer.from(text));
    const range = (from: number, to: number): string => digits(Buffer.from(Array.from({ length: to - from }, (_, i) => from + i)));
    const vectors: [string, string][] = [
      ['sha256 -', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
      [`sha256 ${ascii('abc')}`, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
      [
        `sha256 ${ascii('abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq')}`,
        '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1',
      ],
      [`hmac ${'0b'.repeat(20)} ${ascii('Hi There')}`, 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
      [
        `hmac ${ascii('Jefe')} ${ascii('what do ya want for nothing?')}`,
        '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
      ],
      [
        `hmac ${'aa'.repeat(131)} ${ascii('Test Using Larger Than Block-Size Key - Hash Key First')}`,
        '60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54',
      ],
      [
        `hkdf ${'0b'.repeat(22)} ${range(0, 13)} ${range(0xf0, 0xfa)} 42`,
        '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
      ],
      [
        `hkdf ${range(0, 80)} ${range(0x60, 0xb0)} ${range(0xb0, 0x100)} 82`,
        'b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87',
      ],
      [`hkdf ${'0b'.repeat(22)} - - 42`, '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8'],
    ];
    expect(ask(vectors.map(([question]) => question))).toEqual(vectors.map(([, answer]) => answer));
  });

  it('AES-256-GCM (McGrew and Viega, test cases 13 to 16), with each implementation', ({ skip }) => {
    if (!sanitizers) skip('this compiler has no sanitizers installed');
    const zero = '00'.repeat(32);
    const key = 'feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308';
    const nonce = 'cafebabefacedbaddecaf888';
    const plain =
      'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255';
    const cipher =
      '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad';
    const data = 'feedfacedeadbeeffeedfacedeadbeefabaddad2';
    const vectors: string[][] = [
      [zero, '00'.repeat(12), '-', '-', '-', '530f8afbc74536b9a963b4f1c4cb738b'],
      [zero, '00'.repeat(12), '-', '00'.repeat(16), 'cea7403d4d606b6e074ec5d3baf39d18', 'd0d1c8a799996bf0265b98b5d48ab919'],
      [key, nonce, '-', plain, cipher, 'b094dac5d93471bdec1a502270e3cc6c'],
      [key, nonce, data, plain.slice(0, 120), cipher.slice(0, 120), '76fc6ece0f4e1768cddf8853bb2d551b'],
    ];
    for (const implementation of implementations) {
      for (const [userKey, iv, additional, from, to, tag] of vectors) {
        const answers = ask([
          `encrypt ${implementation} ${userKey} ${iv} ${additional} ${from}`,
          `decrypt ${implementation} ${userKey} ${iv} ${additional} ${to} ${tag}`,
        ]);
        expect(answers).toEqual([`${to} ${tag}`, `${from} right`]);
      }
    }
  });
});

it('computes what Node.js does, for every size around the borders of what is done at once', ({ skip }) => {
  if (!sanitizers) skip('this compiler has no sanitizers installed');
  const questions: string[] = [];
  const answers: string[] = [];
  for (let size = 0; size <= 200; size++) {
    const [key, bytes, salt, info] = [randomBytes(size % 90), randomBytes(size), randomBytes(size % 70), randomBytes(size % 128)];
    questions.push(`sha256 ${digits(bytes)}`, `hmac ${digits(key)} ${digits(bytes)}`);
    answers.push(createHash('sha256').update(bytes).digest('hex'), createHmac('sha256', key).update(bytes).digest('hex'));
    questions.push(`hkdf ${digits(key)} ${digits(salt)} ${digits(info)} ${1 + size}`);
    answers.push(Buffer.from(hkdfSync('sha256', key, salt, info, 1 + size)).toString('hex'));
  }
  const sizes = [...Array.from({ length: 300 }, (_, size) => size), 4096, 65_535, 65_536, 65_537, 100_003];
  for (const implementation of implementations) {
    for (const size of sizes) {
      const [key, nonce, data, bytes] = [randomBytes(32), randomBytes(12), randomBytes(size % 53), randomBytes(size)];
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(data);
      const encrypted = Buffer.concat([cipher.update(bytes), cipher.final()]);
      const tag = cipher.getAuthTag();
      const about = (what: string): string => `${what} ${implementation} ${digits(key)} ${digits(nonce)} ${digits(data)}`;
      questions.push(`${about('encrypt')} ${digits(bytes)}`, `${about('decrypt')} ${digits(encrypted)} ${digits(tag)}`);
      answers.push(`${digits(encrypted)} ${digits(tag)}`, `${digits(bytes)} right`);
      // One bit of the ciphertext, the tag or the additional data is another: nothing but zeros comes out.
      const changed = size % 3 === 0 && size > 0 ? encrypted : size % 3 === 1 && data.length > 0 ? data : tag;
      const bit = randomBytes(4).readUInt32LE() % (8 * changed.length);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      questions.push(`${about('decrypt')} ${digits(encrypted)} ${digits(tag)}`);
      answers.push(`${digits(Buffer.alloc(size))} wrong`);
    }
  }
  expect(implementations.length).toBeGreaterThan(0);
  const given = ask(questions);
  expect(given.length).toBe(answers.length);
  for (let at = 0; at < answers.length; at++) expect(given[at], questions[at]!.slice(0, 400)).toBe(answers[at]);
}, 120_000);
