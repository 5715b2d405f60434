/** Decoders of single notes, on bytes whose meaning is known: what real cores of this machine cannot show. */
import { describe, expect, it } from 'vitest';
import { decodeKernelNote, kernelNoteName, kernelNotes } from '../src/elf/kernel-notes/index.js';
import { decodeSiginfo } from '../src/elf/kernel-notes/siginfo.js';
import { decodeXstate, xstateFeatureNames } from '../src/elf/kernel-notes/xstate.js';
import { cpuFeatureNames } from '../src/elf/cpu-features.js';
import { signalName, signalNames } from '../src/elf/signals.js';
import { systemCallName } from '../src/elf/system-calls.js';
import { socketAddress } from '../src/elf/descriptors.js';

/** An XSAVE area of `size` bytes: component bits, and bytes at offsets. */
function area(size: number, xcr0: bigint, xstateBv: bigint, parts: Record<number, Buffer>): Buffer {
  const raw = Buffer.alloc(size);
  raw.writeBigUInt64LE(xcr0, 464);
  raw.writeBigUInt64LE(xstateBv, 512);
  for (const [offset, bytes] of Object.entries(parts)) bytes.copy(raw, Number(offset));
  return raw;
}

const filled = (size: number, value: number): Buffer => Buffer.alloc(size, value);

describe('NT_X86_XSTATE', () => {
  const avx512 = 0xe7n;

  it.each([
    ['Intel', 2688, { opmask: 1088, zmmHi256: 1152, hi16Zmm: 1664 }],
    ['AMD', 2440, { opmask: 832, zmmHi256: 896, hi16Zmm: 1408 }],
  ])('in the layout of %s gives vector registers put together from all components', (_, size, offsets) => {
    const state = decodeXstate(
      area(size, avx512, avx512, {
        160: filled(256, 0x11), // xmm
        576: filled(256, 0x22), // upper halves of ymm
        [offsets.opmask]: filled(64, 0x33),
        [offsets.zmmHi256]: filled(512, 0x44),
        [offsets.hi16Zmm]: filled(1024, 0x55),
      }),
      null,
    );
    expect(state.ymm).toHaveLength(16);
    expect(state.zmm).toHaveLength(32);
    expect(state.zmm![0]).toEqual(Buffer.concat([filled(16, 0x11), filled(16, 0x22), filled(32, 0x44)]));
    expect(state.zmm![15]).toEqual(state.zmm![0]);
    expect(state.zmm![16]).toEqual(filled(64, 0x55));
    expect(state.zmm![31]).toEqual(filled(64, 0x55));
    expect(state.opmask).toEqual(Array.from({ length: 8 }, () => 0x3333333333333333n));
  });

  it('takes offsets from NT_X86_XSAVE_LAYOUT when there is one', () => {
    const note = Buffer.alloc(32);
    for (const [at, value] of [2, 256, 600, 0, 9, 8, 900, 0].entries()) note.writeUInt32LE(value, at * 4);
    const layout = kernelNotes.xsaveLayout.decode(note);
    expect(layout).toEqual([
      { feature: 2, size: 256, offset: 600 },
      { feature: 9, size: 8, offset: 900 },
    ]);
    const state = decodeXstate(area(1000, 0x207n, 0x207n, { 600: filled(256, 7), 900: Buffer.from([4, 3, 2, 1]) }), layout);
    expect(state.ymm![15]).toEqual(Buffer.concat([filled(16, 0), filled(16, 7)]));
    expect(state.pkru).toBe(0x01020304);
    expect(state.zmm).toBeNull();
  });

  it('gives zeros for a component in its initial state, whatever its bytes say', () => {
    const state = decodeXstate(area(832, 7n, 3n, { 576: filled(256, 0xff) }), null);
    expect(state.ymm![3]).toEqual(Buffer.alloc(32));
  });

  it('without AVX has none of its registers', () => {
    expect(decodeXstate(area(576, 3n, 3n, {}), null)).toMatchObject({ ymm: null, zmm: null, opmask: null, pkru: null });
  });

  it('of a thread with MPX, PKRU and AMX has names for all', () => {
    expect(xstateFeatureNames(0x602ffn)).toEqual('x87 sse avx bndregs bndcsr opmask zmm_hi256 hi16_zmm pkru xtilecfg xtiledata'.split(' '));
  });
});

describe('NT_SIGINFO', () => {
  const info = (signal: number, code: number, ...rest: [number, bigint][]): Buffer => {
    const raw = Buffer.alloc(128);
    raw.writeInt32LE(signal, 0);
    raw.writeInt32LE(code, 8);
    for (const [offset, value] of rest) raw.writeBigUInt64LE(value, offset);
    return raw;
  };

  it('of a fault has the address', () => {
    expect(decodeSiginfo(info(11, 1, [16, 0xdead000n]))).toMatchObject({
      signal: 11,
      code: 1,
      address: 0xdead000n,
      pid: null,
      value: null,
    });
  });

  it('of kill(2) has the sender and no address', () => {
    expect(decodeSiginfo(info(11, 0, [16, (1000n << 32n) | 77n]))).toMatchObject({ address: null, pid: 77, uid: 1000 });
  });

  it('of sigqueue(3) has the value', () => {
    expect(decodeSiginfo(info(34, -1, [16, 5n], [24, 0xfeedn]))).toMatchObject({ pid: 5, value: 0xfeedn });
  });

  it('that is zero has nothing', () => {
    expect(decodeSiginfo(Buffer.alloc(128))).toEqual({ signal: 0, errno: 0, code: 0, address: null, pid: null, uid: null, value: null });
  });
});

it.each(Object.entries(kernelNotes))('%s that is too short is refused with its place', (key, { owner, type, name, minimumSize }) => {
  if (minimumSize === 0) return;
  const note = { owner, type, offset: 0x1234n, descriptor: Buffer.alloc(minimumSize - 1) };
  expect(() => decodeKernelNote(key as 'prstatus', note, 'core')).toThrow(`core: at offset 0x1234: ${name} has ${minimumSize - 1} bytes`);
});

it('notes have the names of elf.h', () => {
  const name = (owner: string, type: number): string | undefined =>
    kernelNoteName({ owner, type, offset: 0n, descriptor: Buffer.alloc(0) });
  expect(name('CORE', 1)).toBe('NT_PRSTATUS');
  expect(name('LINUX', 0x202)).toBe('NT_X86_XSTATE');
  expect(name('GNU', 3)).toBe('NT_GNU_BUILD_ID');
  expect(name('warp-tool', 1)).toBeUndefined();
});

it('signals have the kernel’s names', () => {
  expect([6, 9, 17, 29, 31, 32, 34, 64].map(signalName)).toEqual([
    'SIGABRT',
    'SIGKILL',
    'SIGCHLD',
    'SIGIO',
    'SIGSYS',
    'SIGRTMIN',
    'SIGRTMIN+2',
    'SIGRTMIN+32',
  ]);
  expect(signalNames(0x8000000000000201n)).toEqual(['SIGHUP', 'SIGUSR1', 'SIGRTMIN+32']);
});

it('system calls have the names of asm/unistd_64.h', () => {
  expect([0, 34, 202, 232, 281, 334, 424, 435, 441, 449].map(systemCallName)).toEqual(
    'read pause futex epoll_wait epoll_pwait rseq pidfd_send_signal clone3 epoll_pwait2 futex_waitv'.split(' '),
  );
  expect(systemCallName(400)).toBe('system call 400');
});

it('CPU features are in the words that the format says', () => {
  const words = [1 << 28, 1 << 26, (1 << 5) | (1 << 16), 1 << 3, 1 << 24, 1 << 4, 1 << 5, 1 << 29];
  const raw = Buffer.alloc(32);
  for (const [index, word] of words.entries()) raw.writeUInt32LE(word, index * 4);
  expect(cpuFeatureNames(raw)).toEqual(['avx', 'sse2', 'avx2', 'avx512f', 'pku', 'amx_tile', 'avx_vnni', 'abm', 'lm']);
});

it.each<[string, string]>([
  ['', ''],
  ['0100', ''],
  ['01002f746d702f7300', '/tmp/s'],
  ['0100006162', '@ab'],
  ['02001f907f00000100000000', '127.0.0.1:8080'],
  [`0a0000500000000000000000000000000000000000000001${'00000000'}`, '[::1]:80'],
  [`0a00005000000000${'20010db8000000000000000000000001'}00000000`, '[2001:db8::1]:80'],
  [`0a00005000000000${'00000000000000000000ffff7f000001'}00000000`, '[::ffff:127.0.0.1]:80'],
  ['1000000001000000', 'netlink 0x000001000000'],
])('socket address %s is %s', (raw, text) => {
  expect(socketAddress(Buffer.from(raw, 'hex'))).toBe(text);
});
