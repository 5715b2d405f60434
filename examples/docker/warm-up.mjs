// Asks the service as its users will, and ends with status 0 when it has had so many good answers: `run --checkpoint-when` waits for that,
// and asks again where the service does not listen yet.
const [requests = '1000', address = 'http://127.0.0.1:8080'] = process.argv.slice(2);
const clients = 10;

async function ask(number) {
  const response = await fetch(`${address}/?q=red%20model%20${number}`);
  if (!response.ok) throw new Error(`${response.url}: status ${response.status}`);
  await response.json();
}

for (let i = 0; i < Number(requests); i += clients) await Promise.all(Array.from({ length: clients }, (_, client) => ask(i + client)));
