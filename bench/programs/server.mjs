// server.mjs PORT: answers /NUMBER from pages of text that it computes once and keeps, as a server that renders and caches does.
import { createServer } from 'node:http';

const startedAt = new Date().toISOString();
const pages = new Map();
let answers = 0;

function render(number) {
  let value = number + 1;
  let text = '';
  while (text.length < 32768) {
    value = Math.imul(value, 1664525) + 1013904223;
    text += (value >>> 0).toString(36);
  }
  return text;
}

const server = createServer((request, response) => {
  const number = Number(request.url.slice(1));
  const kept = pages.has(number);
  if (!kept) pages.set(number, render(number));
  const page = pages.get(number);
  const state = { answers: ++answers, pages: pages.size, kept, startedAt, length: page.length, end: page.slice(-8) };
  response.setHeader('content-type', 'application/json').end(JSON.stringify(state));
});
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
