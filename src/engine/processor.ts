/** `run --cpu-features generic`: programs that use what every processor of the last fifteen years has, x86-64-v2 of the x86-64 psABI. docs/java.md. */

/** The engine knows by it, and says so in the image. */
const ENGINE = { WARP_CPU_FEATURES: 'generic' };

/** Of the C library: what it does not use. Names of glibc 2.33 and later (sysdeps/x86/cpu-tunables.c); others are ignored. */
const C_LIBRARY = [
  'AVX,AVX2,AVX_VNNI,AVX512F,AVX512CD,AVX512ER,AVX512PF,AVX512VL,AVX512BW,AVX512DQ,AVX512_IFMA,AVX512_VBMI,AVX512_VBMI2,AVX512_VNNI',
  'AVX512_BITALG,AVX512_VPOPCNTDQ,AVX512_BF16,AVX512_FP16,BMI1,BMI2,LZCNT,MOVBE,FMA,FMA4,F16C,XOP,AES,VAES,PCLMULQDQ,VPCLMULQDQ,GFNI,SHA',
  'ERMS,FSRM,RTM,HLE,XSAVEC,XSAVES,RDRAND,RDSEED,ADX,AVX_Fast_Unaligned_Load,AVX_usable,AVX2_usable',
]
  .join(',')
  .split(',')
  .map((name) => `-${name}`)
  .join(',');

/** Of OpenSSL, whose variable clears bits of CPUID 1 (EDX, ECX) and sets those of CPUID 7 (OPENSSL_ia32cap(3)): PCLMULQDQ, XOP, FMA, MOVBE, AES, AVX, F16C, RDRAND. */
const OPENSSL = `~0x${((1n << 33n) | (1n << 43n) | (1n << 44n) | (1n << 54n) | (1n << 57n) | (1n << 60n) | (1n << 61n) | (1n << 62n)).toString(16)}:0`;

/** Options of HotSpot (JDK 11 to 25). Each intrinsic function and instruction that is not named follows from these. */
export const GENERIC_JAVA_OPTIONS = [
  '-XX:+UnlockDiagnosticVMOptions',
  '-XX:UseSSE=4',
  '-XX:UseAVX=0',
  '-XX:-UseFMA',
  '-XX:-UseBMI1Instructions',
  '-XX:-UseBMI2Instructions',
  '-XX:-UseCountLeadingZerosInstruction',
  '-XX:-UseCountTrailingZerosInstruction',
  '-XX:-UseAES',
  '-XX:-UseSHA',
  '-XX:-UseCLMUL',
  // Looks for CLMUL by itself.
  '-XX:-UseCRC32CIntrinsics',
];

/** The environment of a program that is to do with generic features. */
export function genericProcessor(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const tunables = [environment['GLIBC_TUNABLES'], `glibc.cpu.hwcaps=${C_LIBRARY}`].filter(Boolean).join(':');
  return { ...environment, ...ENGINE, GLIBC_TUNABLES: tunables, OPENSSL_ia32cap: OPENSSL };
}
