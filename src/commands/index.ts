import type { Command } from '@oclif/core';
import Maps from './maps.js';

export const COMMANDS: Record<string, Command.Class> = {
  maps: Maps as unknown as Command.Class,
};
