/* oxlint-disable unicorn/require-post-message-target-origin -- these are worker threads, not windows */
// A product search over HTTP. Two worker threads hold one half of the catalogue each, with an index of every word: building that is the slow
// part of a start. Answers are cached. Nothing here knows about checkpoints.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

const shards = 2;
const products = 240_000;
const colours = ['amber', 'black', 'blue', 'green', 'grey', 'ivory', 'red', 'silver', 'white', 'yellow'];
const things = [
  'bicycle',
  'camera',
  'chair',
  'clock',
  'coat',
  'desk',
  'guitar',
  'kettle',
  'lamp',
  'mirror',
  'piano',
  'telescope',
  'tent',
  'umbrella',
];

function buildIndex(shard) {
  const index = new Map();
  for (let id = shard; id < products; id += shards) {
    const name = `${colours[(id * 7) % colours.length]} ${things[(id * 11) % things.length]} model ${(id * 2654435761) % 4096}`;
    for (const word of name.split(' ')) {
      if (!index.has(word)) index.set(word, new Set());
      index.get(word).add(id);
    }
  }
  return index;
}

function search(index, words) {
  const [first = new Set(), ...others] = words.map((word) => index.get(word) ?? new Set());
  return [...first].filter((id) => others.every((set) => set.has(id)));
}

if (isMainThread) {
  const startedAt = new Date().toISOString();
  const workers = Array.from({ length: shards }, (_, shard) => new Worker(new URL(import.meta.url), { workerData: shard }));
  await Promise.all(workers.map((worker) => once(worker, 'message')));

  const cache = new Map();
  let answered = 0;
  async function answer(query) {
    if (!cache.has(query)) {
      const found = await Promise.all(
        workers.map(async (worker) => {
          worker.postMessage(query);
          return (await once(worker, 'message'))[0];
        }),
      );
      cache.set(query, found.flat().length);
    }
    return cache.get(query);
  }

  let queue = Promise.resolve(); // one question at a time to the workers
  const server = createServer((request, response) => {
    const query = new URL(request.url, 'http://localhost').searchParams.get('q') ?? '';
    queue = queue.then(async () => {
      const cached = cache.has(query);
      const matches = await answer(query);
      answered++;
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ query, matches, cached, answered, cacheEntries: cache.size, startedAt }));
    });
  });
  server.listen(Number(process.argv[2] ?? 0), process.argv[3] ?? '127.0.0.1', () =>
    console.log(`listening on port ${server.address().port}`),
  );
} else {
  const index = buildIndex(workerData);
  parentPort.postMessage('ready');
  parentPort.on('message', (query) => parentPort.postMessage(search(index, query.split(' '))));
}
