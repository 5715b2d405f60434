import type { Browser } from 'playwright-core';

export declare const chromiumPath: string;
export declare function hasChromium(): boolean;
export declare function startBrowser(): Promise<Browser>;
