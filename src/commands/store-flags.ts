import { Flags } from '@oclif/core';
import type { StoreOptions } from '../store/object-store.js';
import { Failure } from '../failure.js';

/** What all commands of object storage take. */
export const storeFlags = {
  endpoint: Flags.string({
    description: 'Base URL of the store; also AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, GS_ENDPOINT_URL.',
    helpValue: 'URL',
  }),
  region: Flags.string({ description: 'Region of the bucket; also AWS_REGION.', helpValue: 'REGION' }),
  profile: Flags.string({ description: 'Profile of the shared AWS configuration; also AWS_PROFILE.', helpValue: 'NAME' }),
  timeout: Flags.integer({
    description: 'Send a request again when nothing has come for so long.',
    helpValue: 'SECONDS',
    default: 60,
    min: 1,
  }),
  parallel: Flags.integer({ description: 'Requests at once.', helpValue: 'N', default: 8, min: 1, max: 64 }),
};

export const forceFlag = Flags.boolean({ char: 'f', description: 'Replace what is there already.' });

interface Parsed {
  endpoint?: string | undefined;
  region?: string | undefined;
  profile?: string | undefined;
  timeout: number;
}

export function storeOptions({ endpoint, region, profile, timeout }: Parsed): StoreOptions {
  if (profile === '') throw new Failure('--profile is empty; name a profile of ~/.aws/config');
  if (profile !== undefined) {
    // All readers of the shared configuration go by the environment, and a profile that was asked for comes before keys that are there.
    process.env['AWS_PROFILE'] = profile;
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN']) delete process.env[name];
  }
  return { endpoint, region, timeout };
}
