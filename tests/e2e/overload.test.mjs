// More than the server takes: it stays small, tells who is too much, drops who is too slow, and serves the others meanwhile.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { connect } from 'node:tls';
import { ATOLL, configMap, eventually, Fleet, ROOT, run } from './lib/atoll.mjs';
import { call, certificateRequest, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const MIB = 1 << 20;
const COLLECTION = '/api/v1/namespaces/default/configmaps';
let s;
let admin;
let other; // another user: a gateway

before(async () => {
  const limits = ['answers-bytes=64Mi', 'bodies-bytes=1Mi', 'watches-per-user=20', 'watch-queue-bytes=64Ki', 'body-bytes=2Mi'];
  const env = { ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:quarantine_size_mb=4` };
  s = await fleet.server({ args: limits.flatMap((l) => ['--limit', l]), env });
  admin = await credentials(s.kubeconfig);
  const token = await call(admin, 'POST', '/join/v1/tokens', { role: 'gateway', site: '', ttl: '1h' });
  const { csr, key } = await certificateRequest('x');
  const joined = await call({ url: admin.url, ca: admin.ca }, 'POST', '/join/v1', { token: token.body.token, csr, name: 'g' });
  assert.ok(joined.body.certificate, JSON.stringify(joined.body));
  other = { ...admin, cert: joined.body.certificate, key };
});

const residentBytes = async () => Number(/^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${s.proc.pid}/status`, 'utf8'))[1]) * 1024;
const metric = async (name) => Number(new RegExp(`^${name}(?:\\{\\})? (\\d+)`, 'm').exec((await call(admin, 'GET', '/metrics')).body)?.[1] ?? NaN);
const lists = async () => assert.equal((await call(other, 'GET', '/apis/atoll.dev/v1/sites')).status, 200);

// A client that sends and reads no more than the answer's head, if so much.
function slow(text, who = admin) {
  const url = new URL(who.url);
  const { ca, cert, key } = who;
  return new Promise((resolve) => {
    const socket = connect({ host: url.hostname, port: Number(url.port), ca, cert, key, servername: 'localhost', checkServerIdentity: () => undefined, highWaterMark: 16384 });
    const client = { socket, head: '', closed: false };
    client.answered = new Promise((done) => {
      socket.on('data', (d) => {
        client.head += d.toString('latin1').slice(0, 2000);
        socket.pause();
        done();
      });
      socket.on('close', () => {
        client.closed = true;
        done();
      });
    });
    socket.on('error', () => {});
    socket.on('secureConnect', () => {
      socket.write(text);
      resolve(client);
    });
  });
}
const get = (target) => `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`;
const status = (client) => Number(/^HTTP\/1\.1 (\d+)/.exec(client.head)?.[1] ?? 0);
const done = (clients) => clients.forEach((c) => c.socket.destroy());

it('the documented limits are those of the program', async () => {
  const table = await run(ATOLL, ['server', '--limits']);
  assert.equal(table.code, 0);
  assert.ok((await readFile(path.join(ROOT, 'docs/LIMITS.md'), 'utf8')).includes(table.out), 'docs/LIMITS.md: paste the output of atoll server --limits');
  const metrics = (await call(admin, 'GET', '/metrics')).body;
  for (const [name] of table.out.matchAll(/atoll_[a-z_]+/g)) assert.match(metrics, new RegExp(`^# TYPE ${name} `, 'm'));
  for (const [text, why] of [['requests=0', /from 1 to/], ['bodies-bytes=x', /quantity/], ['colour=3', /--limits/], ['requests', /NAME=VALUE/]]) {
    const r = await run(ATOLL, ['server', '--limit', text]);
    assert.equal(r.code, 2, r.err);
    assert.match(r.err, why);
  }
});

it('bodies that never end take no more memory than their limit; small requests go on', async () => {
  const head = (n) => `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${n}\r\n\r\n{`;
  const holders = await Promise.all(Array.from({ length: 5 }, () => slow(head(200_000))));
  await eventually('they are counted', async () => (await metric('atoll_http_bodies_bytes')) === 1_000_000);
  const refused = await slow(head(200_000));
  await refused.answered;
  assert.equal(status(refused), 429, refused.head);
  assert.match(refused.head, /Retry-After: 1/);
  await lists();
  assert.ok((await metric('atoll_http_bodies_refused_total')) >= 1);
  done([...holders, refused]);
  await eventually('they are forgotten', async () => (await metric('atoll_http_bodies_bytes')) === 0);
});

it('clients that do not read their lists are cut off or told 429, and the server stays small', async () => {
  const big = 'x'.repeat(900_000);
  for (let i = 0; i < 30; i++) assert.equal((await call(admin, 'POST', COLLECTION, configMap(`big-${i}`, { big }))).status, 201);
  const resting = await residentBytes();
  const clients = [];
  for (let i = 0; i < 24; i++) {
    clients.push(await slow(get(COLLECTION))); // 27 MB each: 650 MB in all
    await clients[i].answered;
    await lists();
  }
  const told = clients.filter((c) => status(c) === 429);
  assert.ok(told.length > 10, `${told.length} of 24 were told 429`);
  assert.match(told[0].head, /Retry-After: 1/);
  const grown = (await residentBytes()) - resting;
  assert.ok(grown < 220 * MIB, `grew by ${Math.round(grown / MIB)} MiB`);
  assert.ok((await metric('atoll_http_answers_refused_total')) >= told.length);
  // Who holds an answer for two seconds makes room for the next.
  await eventually('the slow ones are cut off', async () => {
    const one = await slow(get(COLLECTION));
    await one.answered;
    one.socket.destroy();
    return status(one) === 200 && (await metric('atoll_http_slow_clients_cut_total')) > 0;
  }, { everyMs: 250 });
  done(clients);
});

it('a watcher that does not read is cut off, others see every change', async () => {
  const { resourceVersion } = (await call(admin, 'GET', `${COLLECTION}?limit=1`)).body.metadata;
  const query = `?watch=true&resourceVersion=${resourceVersion}`;
  const idle = await slow(get(`${COLLECTION}${query}&fieldSelector=metadata.name%3Dsteady`));
  const sleeper = await slow(get(`${COLLECTION}${query}`));
  const before = await metric('atoll_api_watches_cut_total');
  for (let i = 0; i < 30; i++) {
    const patch = { data: { big: String(i).repeat(900_000 / String(i).length) } };
    assert.equal((await call(admin, 'PATCH', `${COLLECTION}/big-${i}`, patch, { 'Content-Type': 'application/merge-patch+json' })).status, 200);
  }
  await eventually('it is cut', async () => (await metric('atoll_api_watches_cut_total')) === before + 1);
  await call(admin, 'POST', COLLECTION, configMap('steady', { a: '1' }));
  await eventually('the other one sees its object', () => {
    idle.socket.resume();
    return /"name":"steady"/.test(idle.head);
  });
  done([idle, sleeper]);
});

it('one user cannot take all watches', async () => {
  const target = '/apis/atoll.dev/v1/sites?watch=true';
  const clients = await Promise.all(Array.from({ length: 20 }, () => slow(get(target))));
  await eventually('all are open', async () => (await metric('atoll_api_watches')) >= 20);
  const more = await call(admin, 'GET', target);
  assert.equal(more.status, 429);
  assert.equal(more.headers['retry-after'], '1');
  assert.equal(more.body.reason, 'TooManyRequests');
  const theirs = await slow(get(target), other);
  await theirs.answered;
  assert.equal(status(theirs), 200);
  done([...clients, theirs]);
  await eventually('they are closed', async () => (await metric('atoll_api_watches')) === 0);
});

it('a user with 24 connections that ask without a pause slows another one down little', async () => {
  let going = true;
  const times = { greedy: [], modest: [] };
  const timed = async (who, target, list) => {
    const begin = performance.now();
    const answer = await call(who, 'GET', target, undefined, { Accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' });
    assert.equal(answer.status, 200);
    list.push(performance.now() - begin);
  };
  const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
  const { Agent } = await import('node:https');
  const agents = Array.from({ length: 24 }, () => new Agent({ keepAlive: true, maxSockets: 1 }));
  const greedy = agents.map(async (agent) => {
    while (going) await timed({ ...admin, agent }, `${COLLECTION}?limit=1`, times.greedy);
  });
  await eventually('they are under way', () => times.greedy.length > 60);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  for (let i = 0; i < 12; i++) await timed({ ...other, agent }, '/apis/atoll.dev/v1/sites', times.modest);
  going = false;
  await Promise.all(greedy);
  for (const a of [agent, ...agents]) a.destroy();
  const [g, m] = [median(times.greedy), median(times.modest)];
  assert.ok(m < g / 3, `median of the modest ${m.toFixed(1)} ms, of the greedy ${g.toFixed(1)} ms`);
});
