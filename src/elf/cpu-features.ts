/**
 * Names of CPUID bits as /proc/cpuinfo spells them, for the eight words of `cpu_features` in docs/image-format.md. Bits without a name there
 * are left out. Source: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
 */
const WORDS: Record<number, string>[] = [
  // CPUID 1 ECX
  {
    0: 'sse3',
    1: 'pclmulqdq',
    9: 'ssse3',
    12: 'fma',
    13: 'cx16',
    19: 'sse4_1',
    20: 'sse4_2',
    22: 'movbe',
    23: 'popcnt',
    25: 'aes',
    26: 'xsave',
    27: 'osxsave',
    28: 'avx',
    29: 'f16c',
    30: 'rdrand',
    31: 'hypervisor',
  },
  // CPUID 1 EDX
  { 0: 'fpu', 4: 'tsc', 8: 'cx8', 15: 'cmov', 19: 'clflush', 23: 'mmx', 24: 'fxsr', 25: 'sse', 26: 'sse2', 28: 'ht' },
  // CPUID 7.0 EBX
  {
    0: 'fsgsbase',
    3: 'bmi1',
    4: 'hle',
    5: 'avx2',
    8: 'bmi2',
    9: 'erms',
    11: 'rtm',
    16: 'avx512f',
    17: 'avx512dq',
    18: 'rdseed',
    19: 'adx',
    21: 'avx512ifma',
    23: 'clflushopt',
    24: 'clwb',
    28: 'avx512cd',
    29: 'sha_ni',
    30: 'avx512bw',
    31: 'avx512vl',
  },
  // CPUID 7.0 ECX
  {
    1: 'avx512vbmi',
    3: 'pku',
    4: 'ospke',
    5: 'waitpkg',
    6: 'avx512_vbmi2',
    7: 'shstk',
    8: 'gfni',
    9: 'vaes',
    10: 'vpclmulqdq',
    11: 'avx512_vnni',
    12: 'avx512_bitalg',
    14: 'avx512_vpopcntdq',
    16: 'la57',
    22: 'rdpid',
    25: 'cldemote',
    27: 'movdiri',
    28: 'movdir64b',
  },
  // CPUID 7.0 EDX
  {
    4: 'fsrm',
    8: 'avx512_vp2intersect',
    14: 'serialize',
    16: 'tsxldtrk',
    20: 'ibt',
    22: 'amx_bf16',
    23: 'avx512_fp16',
    24: 'amx_tile',
    25: 'amx_int8',
  },
  // CPUID 7.1 EAX
  { 4: 'avx_vnni', 5: 'avx512_bf16', 10: 'fzrm', 11: 'fsrs', 12: 'fsrc', 21: 'amx_fp16', 23: 'avx_ifma' },
  // CPUID 0x80000001 ECX
  { 0: 'lahf_lm', 5: 'abm', 6: 'sse4a', 8: '3dnowprefetch', 11: 'xop', 16: 'fma4', 21: 'tbm' },
  // CPUID 0x80000001 EDX
  { 11: 'syscall', 20: 'nx', 26: 'pdpe1gb', 27: 'rdtscp', 29: 'lm' },
];

/** `raw` is eight u32, little-endian; a shorter one has fewer words. */
export function cpuFeatureNames(raw: Buffer): string[] {
  const found: string[] = [];
  for (const [word, features] of WORDS.entries()) {
    if (raw.length < (word + 1) * 4) break;
    const bits = raw.readUInt32LE(word * 4);
    for (const [bit, name] of Object.entries(features)) if ((bits >>> Number(bit)) & 1) found.push(name);
  }
  return found;
}
