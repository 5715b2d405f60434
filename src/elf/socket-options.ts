/** Options that the engine keeps, by level and name (asm-generic/socket.h, linux/in.h, linux/in6.h, linux/tcp.h). */
const NAMES: Record<number, Record<number, string>> = {
  1: {
    2: 'SO_REUSEADDR',
    6: 'SO_BROADCAST',
    7: 'SO_SNDBUF',
    8: 'SO_RCVBUF',
    9: 'SO_KEEPALIVE',
    10: 'SO_OOBINLINE',
    12: 'SO_PRIORITY',
    13: 'SO_LINGER',
    15: 'SO_REUSEPORT',
    16: 'SO_PASSCRED',
    18: 'SO_RCVLOWAT',
    20: 'SO_RCVTIMEO',
    21: 'SO_SNDTIMEO',
    29: 'SO_TIMESTAMP',
    46: 'SO_BUSY_POLL',
  },
  0: { 1: 'IP_TOS', 2: 'IP_TTL', 8: 'IP_PKTINFO', 15: 'IP_FREEBIND', 33: 'IP_MULTICAST_TTL', 34: 'IP_MULTICAST_LOOP' },
  41: { 16: 'IPV6_UNICAST_HOPS', 18: 'IPV6_MULTICAST_HOPS', 26: 'IPV6_V6ONLY', 49: 'IPV6_RECVPKTINFO', 67: 'IPV6_TCLASS' },
  6: {
    1: 'TCP_NODELAY',
    4: 'TCP_KEEPIDLE',
    5: 'TCP_KEEPINTVL',
    6: 'TCP_KEEPCNT',
    7: 'TCP_SYNCNT',
    9: 'TCP_DEFER_ACCEPT',
    18: 'TCP_USER_TIMEOUT',
    23: 'TCP_FASTOPEN',
  },
};

/** Options of the note `sockets` by name, `LEVEL/NUMBER` where that is not known; integers in decimal, other values as hexadecimal bytes. */
export function decodeSocketOptions(raw: Buffer): Record<string, string> {
  const options: Record<string, string> = {};
  for (let at = 0; at + 16 <= raw.length;) {
    const [level, number, length] = [raw.readInt32LE(at), raw.readInt32LE(at + 4), raw.readUInt32LE(at + 8)];
    const value = raw.subarray(at + 16, at + 16 + length);
    options[NAMES[level]?.[number] ?? `${level}/${number}`] = value.length === 4 ? String(value.readInt32LE()) : value.toString('hex');
    at += 16 + Math.ceil(length / 8) * 8;
  }
  return options;
}
