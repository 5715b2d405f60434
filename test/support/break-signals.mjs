// Loaded into a program that a test starts: SIGUSR2 breaks it in the way that a fault in its own code would.
process.on('SIGUSR2', () => {
  throw new Error('broken on purpose');
});
