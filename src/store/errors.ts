import { Failure } from '../failure.js';

/** What an error message can say about where a request went. */
export interface Destination {
  scheme: 's3' | 'gs';
  bucket: string;
  /** Base URL of the store; null for AWS itself. */
  endpoint: string | null;
  region: string;
}

/** The parts of the SDK's errors that tell what went wrong. */
interface StoreError extends Error {
  /** Of Node.js, for errors of the network. */
  code?: string;
  $metadata?: { httpStatusCode?: number; attempts?: number };
  $response?: { headers?: Record<string, string> };
  Region?: string;
}

export function statusOf(error: unknown): number | undefined {
  return (error as StoreError | undefined)?.$metadata?.httpStatusCode;
}

/** Name of an error for answers that no object store gives. */
export const NO_STORE = 'NoObjectStore';

/** The permissions that each kind of request needs, as AWS names them. */
export type Permission = 's3:GetObject' | 's3:PutObject' | 's3:ListBucket' | 's3:AbortMultipartUpload';

/**
 * One line for a request that failed for good: what was to be done, why it was not, and the mend. `permission` is what the request needs.
 * A Failure stays as it is.
 */
export function explain(error: unknown, what: string, permission: Permission, to: Destination): Failure {
  if (error instanceof Failure) return error;
  const cause = error as StoreError;
  return new Failure(`${what}: ${reason(cause, permission, to)}`, { cause });
}

function reason(error: StoreError, permission: Permission, to: Destination): string {
  const bucket = `${to.scheme}://${to.bucket}`;
  const keys =
    to.scheme === 'gs' ? 'GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY' : 'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE';
  const endpointSetting = to.scheme === 'gs' ? 'GS_ENDPOINT_URL' : 'AWS_ENDPOINT_URL';
  const regionSetting = to.scheme === 'gs' ? '--region ' : 'AWS_REGION=';
  const where = to.endpoint ?? `AWS in ${to.region}`;
  const status = statusOf(error);
  const region = error.$response?.headers?.['x-amz-bucket-region'] ?? error.Region ?? /expecting '([\w-]+)'/.exec(error.message)?.[1];
  switch (error.name) {
    case 'NoSuchBucket':
      return `there is no bucket ${bucket} at ${where}; check the name${to.endpoint ? ` and the endpoint (${endpointSetting})` : ', or set AWS_ENDPOINT_URL for a store other than AWS'}`;
    case 'InvalidBucketName':
      return `${to.bucket} is not a valid bucket name; check the URL`;
    case 'NoSuchKey':
      return `there is no such object; see \`warp-tool list ${bucket}/\``;
    case 'CredentialsProviderError':
      return `no credentials${process.env['AWS_PROFILE'] ? ` in profile ${process.env['AWS_PROFILE']}` : ''}: ${firstLine(error.message)}; set ${keys}`;
    case 'InvalidAccessKeyId':
      return `${where} does not know the access key; check ${keys}`;
    case 'SignatureDoesNotMatch':
      return `the secret key does not fit the access key; check ${keys}`;
    case 'ExpiredToken':
    case 'ExpiredTokenException':
    case 'TokenRefreshRequired':
      return 'the credentials have expired; get new ones (for example with `aws sso login`)';
    case 'RequestTimeTooSkewed':
      return "this host's clock is too far from the store's; set it right";
    case 'InvalidObjectState':
      return 'the object is archived and cannot be read; restore it from the archive first';
    case 'NoSuchUpload':
      return 'the upload was removed while it went on, by somebody or by a lifecycle rule; push again';
    case 'QuotaExceeded':
      return 'the quota of the bucket or the user is used up; remove objects or have it raised';
    case 'EntityTooLarge':
      return 'the store does not take objects of this size';
    case 'NotImplemented':
      return `${where} does not support this request; use another store`;
    case 'SlowDown':
      return 'the store asks for fewer requests; try again later, or with a smaller --parallel';
  }
  const network = error.code === undefined ? undefined : networkReason(error.code, where, endpointSetting);
  if (network) return network;
  if (error.name === 'TimeoutError') return `${where} does not answer; check the network${to.endpoint ? ` and ${endpointSetting}` : ''}`;
  if (status === 301 || status === 307 || error.name === 'PermanentRedirect' || error.name === 'AuthorizationHeaderMalformed') {
    return region
      ? `the bucket is in region ${region}, the request went to ${to.region}; set ${regionSetting}${region}`
      : `the bucket is not in region ${to.region}; set ${regionSetting}REGION`;
  }
  if (status === 404) return `there is no such object or bucket at ${where}; see \`warp-tool list ${bucket}/\``;
  if (status === 401 || status === 403) {
    const hidden = permission === 's3:GetObject' ? '; without s3:ListBucket, a missing object is denied too' : '';
    return `access denied; the credentials need ${permission} on ${bucket}${hidden}`;
  }
  if (status !== undefined && status >= 500) {
    const tries = error.$metadata?.attempts ?? 1;
    return `the store failed ${tries === 1 ? '' : `${tries} times `}(status ${status}, ${error.name}); try again later`;
  }
  if (error.name === NO_STORE || /Deserialization error|is not expected|Unexpected token/.test(error.message)) {
    return `${where} does not answer as an object store does; check ${endpointSetting}`;
  }
  return `${status === undefined ? '' : `status ${status}, `}${error.name}: ${firstLine(error.message)}`;
}

function networkReason(code: string, where: string, setting: string): string | undefined {
  if (code === 'ECONNREFUSED') return `nothing listens at ${where}; check ${setting}`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `the name of ${where} cannot be resolved; check ${setting} and the network`;
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH') return `there is no route to ${where}; check the network`;
  if (code === 'ETIMEDOUT') return `${where} does not answer; check the network`;
  if (code === 'ECONNRESET' || code === 'EPIPE') return `${where} closed the connection; try again`;
  if (code === 'EPROTO' || code === 'ERR_SSL_WRONG_VERSION_NUMBER') return `${where} does not speak TLS; use http:// in ${setting}`;
  if (code.startsWith('ERR_TLS') || /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)/.test(code)) {
    return `the certificate of ${where} is not trusted (${code}); give its authority in AWS_CA_BUNDLE`;
  }
  return undefined;
}

function firstLine(text: string): string {
  return text.split('\n')[0]!.replace(/[.\s]+$/, '');
}
