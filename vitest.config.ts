import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // oclif's captureOutput and the tests that read stdout need the real console.
    disableConsoleIntercept: true,
    projects: [
      {
        extends: true,
        test: { name: 'unit', include: ['test/*.test.ts'], testTimeout: 60_000, hookTimeout: 120_000 },
      },
      {
        extends: true,
        // One file at a time: these run real programs, and two cores have to be enough for them.
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
