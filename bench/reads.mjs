// Reads at size: the time of one list of 10,000 Instances, and how long until the last of 2,000 watchers has seen one change.
// Usage: node bench/reads.mjs URL CA.pem CERT.pem KEY.pem [OBJECTS] [WATCHERS]
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';

const [url, ca, cert, key, objects = 10_000, watchers = 2000] = process.argv.slice(2);
const tls = { ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key) };
const agent = new Agent({ keepAlive: true, maxSockets: 32, ...tls });
const BASE = '/apis/atoll.dev/v1/namespaces/default/instances';

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const begin = process.hrtime.bigint();
    const req = request(new URL(path, url), { method, agent, headers: { 'Content-Type': 'application/json' } }, (res) => {
      let bytes = 0;
      let first;
      res.on('data', (d) => {
        first ??= process.hrtime.bigint();
        bytes += d.length;
      });
      res.on('end', () => resolve({ status: res.statusCode, bytes, firstMs: Number((first ?? begin) - begin) / 1e6, allMs: Number(process.hrtime.bigint() - begin) / 1e6 }));
    });
    req.on('error', reject);
    req.end(body && JSON.stringify(body));
  });
}

const instance = (i) => ({
  metadata: { name: `i${String(i).padStart(6, '0')}`, labels: { app: `a${i % 10}` }, annotations: { note: 'x'.repeat(1400) } },
  spec: { command: ['/bin/true'], nodeName: `n${i % 100}`, resources: { cpu: '100m', memory: '64Mi' } },
});

const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
const figure = (name, value, unit) => console.log(`${name} ${value.toFixed(1)} ${unit}`);

for (let at = 0; at < objects; ) {
  const batch = [];
  for (let k = 0; k < 32 && at < objects; k++, at++) batch.push(call('POST', BASE, instance(at)));
  for (const r of await Promise.all(batch)) if (![201, 409].includes(r.status)) throw new Error(`create: ${r.status}`);
}
const lists = [];
for (let i = 0; i < 7; i++) lists.push(await call('GET', BASE));
figure(`list_${objects}_first_byte`, median(lists.map((l) => l.firstMs)), 'ms');
figure(`list_${objects}_whole`, median(lists.map((l) => l.allMs)), 'ms');
figure(`list_${objects}_bytes`, lists[0].bytes / 1e6, 'MB');

// Watchers of one object each connection; all see the same change.
const seen = [];
let onSeen = () => {};
const requests = [];
for (let at = 0; at < watchers; ) {
  const batch = [];
  for (let k = 0; k < 50 && at < watchers; k++, at++) {
    batch.push(
      new Promise((resolve, reject) => {
        const req = request(new URL(`${BASE}?watch=true&fieldSelector=metadata.name%3Di000000`, url), { agent: false, ...tls }, (res) => {
          res.once('data', resolve);
          res.on('data', () => {
            seen.push(process.hrtime.bigint());
            onSeen();
          });
          res.on('error', () => {});
        });
        req.on('error', reject);
        req.end();
        requests.push(req);
      }),
    );
  }
  await Promise.all(batch);
}
const spans = [];
for (let round = 0; round < 5; round++) {
  seen.length = 0;
  const all = new Promise((resolve) => {
    onSeen = () => seen.length >= watchers && resolve();
  });
  const patched = new Promise((resolve, reject) => {
    const req = request(new URL(`${BASE}/i000000`, url), { method: 'PATCH', agent, headers: { 'Content-Type': 'application/merge-patch+json' } }, (res) => {
      res.resume();
      res.on('end', resolve);
    });
    req.on('error', reject);
    req.end(JSON.stringify({ metadata: { labels: { round: String(round + Math.random()).replace('.', '-') } } }));
  });
  const begin = process.hrtime.bigint();
  await Promise.all([all, patched]);
  spans.push(Number(seen[watchers - 1] - begin) / 1e6);
}
figure(`watch_${watchers}_last_seen`, median(spans), 'ms');
for (const r of requests) r.destroy();
agent.destroy();
