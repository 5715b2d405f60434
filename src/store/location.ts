import { Failure } from '../failure.js';

/** The part of an object store that a URL means. Keys are taken as they stand: nothing in them is percent-encoded. */
export interface Location {
  scheme: 's3' | 'gs';
  bucket: string;
  /** An object's key, or a prefix of keys; empty for the whole bucket. */
  key: string;
}

/** Takes `s3://bucket/key` or `gs://bucket/key` apart. */
export function parseLocation(url: string): Location {
  const parts = /^(s3|gs):\/\/([^/]*)(?:\/(.*))?$/is.exec(url);
  if (!parts) throw new Failure(`${url} is not a place in an object store; give s3://BUCKET/KEY or gs://BUCKET/KEY`);
  const [, scheme, bucket, key = ''] = parts;
  if (bucket === '') throw new Failure(`${url} names no bucket; give ${scheme}://BUCKET/KEY`);
  if (Buffer.byteLength(key) > 1024)
    throw new Failure(`${url}: the key has ${Buffer.byteLength(key)} bytes; object stores take up to 1024`);
  return { scheme: scheme!.toLowerCase() as Location['scheme'], bucket: bucket!, key };
}

/** The object that an IMAGE argument means: like a directory, a URL that ends in a slash (or names a bucket only) stands for its core.img. */
export function imageLocation(url: string): Location {
  const location = parseLocation(url);
  return location.key === '' || location.key.endsWith('/') ? { ...location, key: `${location.key}core.img` } : location;
}

export function urlOf({ scheme, bucket, key }: Location): string {
  return `${scheme}://${bucket}/${key}`;
}
