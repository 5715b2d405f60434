import { accessSync, constants } from 'node:fs';
import { chromium } from 'playwright-core';

/** Debian's Chromium; nothing is downloaded. */
export const chromiumPath = '/usr/bin/chromium';

const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function hasChromium() {
  try {
    accessSync(chromiumPath, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export function startBrowser() {
  return chromium.launch({ executablePath: chromiumPath, args: flags });
}
