// Replicas that speak HTTP/2, by what is said of them and by what TLS agrees on: many requests on one connection.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http2 from 'node:http2';
import path from 'node:path';
import { eventually, Fleet, run } from './lib/atoll.mjs';
import { staticGateway } from './lib/gateway.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);

// answer(stream, headers, body, self)
async function h2Replica(answer, { tls, settings = {} } = {}) {
  const self = { seen: [], sessions: new Set(), made: 0, open: 0, most: 0 };
  self.server = tls ? http2.createSecureServer({ ...tls, settings }) : http2.createServer({ settings });
  self.server.on('session', (s) => {
    self.made++;
    self.sessions.add(s);
    s.on('close', () => self.sessions.delete(s));
    s.on('error', () => {});
  });
  self.server.on('stream', async (stream, headers) => {
    const chunks = [];
    stream.on('error', () => {});
    self.most = Math.max(self.most, ++self.open);
    stream.on('close', () => self.open--);
    for await (const c of stream) chunks.push(c);
    self.seen.push({ headers, body: Buffer.concat(chunks) });
    await answer(stream, headers, Buffer.concat(chunks), self);
  });
  self.server.listen(0, '127.0.0.1');
  await once(self.server, 'listening');
  self.server.unref();
  self.endpoint = `127.0.0.1:${self.server.address().port}`;
  self.stop = () => {
    for (const s of self.sessions) s.destroy();
    return new Promise((done) => self.server.close(done));
  };
  return self;
}

const echo = (stream, headers, body) => {
  stream.respond({ ':status': 200, 'content-type': 'application/json' });
  stream.end(JSON.stringify({ path: headers[':path'], authority: headers[':authority'], n: body.length }));
};

for (const backend of ['epoll', 'io_uring']) {
  it(`${backend}: requests share a connection, bodies and streams of events pass`, async () => {
    const back = await h2Replica((stream, headers, body) => {
      if (headers[':path'].endsWith('/completions')) {
        stream.respond({ ':status': 200, 'content-type': 'text/event-stream' });
        stream.write('data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n');
        return void setTimeout(() => stream.end('data: [DONE]\n\n'), 300);
      }
      setTimeout(() => echo(stream, headers, body), 50);
    });
    const gateway = await staticGateway(fleet, { m: [{ endpoint: back.endpoint, protocol: 'h2c', instance: 'm-1' }] }, { backend });
    const all = await Promise.all(Array.from({ length: 90 }, () => gateway.infer('m', { body: '{"inputs":[]}' })));
    assert.deepEqual([...new Set(all.map((a) => a.status))], [200]);
    assert.equal(back.made, 1);
    assert.ok(back.most > 20, `${back.most} at once`);
    assert.equal(JSON.parse(all[0].body).path, '/v2/models/m/infer');
    assert.equal(back.seen[0].headers.connection, undefined);
    const big = await gateway.infer('m', { body: Buffer.alloc(3 << 20, ' ') });
    assert.equal(JSON.parse(big.body).n, 3 << 20);
    const began = Date.now();
    const stream = await fetch(new URL('/v1/chat/completions', gateway.url), { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"model":"m","stream":true,"messages":[]}' });
    const reader = stream.body.getReader();
    assert.match(Buffer.from((await reader.read()).value).toString(), /"a"/);
    assert.ok(Date.now() - began < 5000);
    assert.match(Buffer.from((await reader.read()).value).toString(), /DONE/);
    await back.stop();
  });

  it(`${backend}: a replica that takes few streams at a time gets more connections, and one that leaves loses nothing`, async () => {
    const back = await h2Replica((stream, headers, body) => setTimeout(() => echo(stream, headers, body), 20), { settings: { maxConcurrentStreams: 5 } });
    const gateway = await staticGateway(fleet, { m: [{ endpoint: back.endpoint, protocol: 'h2c' }] }, { backend });
    assert.equal((await gateway.infer('m')).status, 200);
    let all = await Promise.all(Array.from({ length: 60 }, () => gateway.infer('m')));
    assert.deepEqual([...new Set(all.map((a) => a.status))], [200]);
    const leaving = setInterval(() => {
      for (const s of back.sessions) s.close(); // GOAWAY; what is under way is finished
    }, 120);
    all = [];
    for (let i = 0; i < 10; i++) all.push(...(await Promise.all(Array.from({ length: 20 }, () => gateway.infer('m')))));
    clearInterval(leaving);
    assert.deepEqual([...new Set(all.map((a) => a.status))], [200]);
    await back.stop();
  });
}

it('one that breaks off in the middle, or refuses streams, is not taken for well', async () => {
  let mode = 'refuse';
  const bad = await h2Replica((stream) => {
    if (mode === 'refuse') return stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    stream.respond({ ':status': 200, 'content-type': 'application/json' });
    stream.write('{"half":');
    return setTimeout(() => stream.destroy(new Error('broken')), 50);
  });
  const good = await h2Replica(echo);
  const gateway = await staticGateway(fleet, { m: [bad, good].map((r, i) => ({ endpoint: r.endpoint, protocol: 'h2c', instance: `m-${i}` })), alone: [{ endpoint: bad.endpoint, protocol: 'h2c' }] }, { policies: { m: { ejection: { errors: 0 } }, alone: { waiting: { timeout: '300ms' } } } });
  const refused = await Promise.all(Array.from({ length: 10 }, () => gateway.chat('m')));
  assert.deepEqual([...new Set(refused.map((a) => a.status))], [200], 'a stream that was refused was not looked at: even a chat may go elsewhere');
  mode = 'break';
  const cut = await gateway.chat('alone');
  assert.ok(cut.error, JSON.stringify(cut));
  await Promise.all([bad.stop(), good.stop()]);
});

it('TLS with another server: HTTP/2 where it offers it, HTTP/1.1 where not, nobody else', async () => {
  const dir = await fleet.dir('atoll-cert');
  const file = (name) => path.join(dir, name);
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file('key'), '-out', file('cert'), '-days', '2', '-subj', '/CN=replica.example', '-addext', 'subjectAltName=DNS:replica.example']);
  const tls = { key: await readFile(file('key')), cert: await readFile(file('cert')), allowHTTP1: true };
  const two = await h2Replica(echo, { tls });
  const https = await import('node:https');
  const one = https.createServer(tls, (req, res) => res.end(JSON.stringify({ one: req.httpVersion })));
  one.listen(0, '127.0.0.1');
  await once(one, 'listening');
  one.unref();
  const way = (endpoint, name = 'replica.example') => [{ endpoint, tls: { ca: file('cert'), name } }];
  const gateway = await staticGateway(fleet, { two: way(two.endpoint), one: way(`127.0.0.1:${one.address().port}`), other: way(two.endpoint, 'other.example') }, { policies: { other: { waiting: { timeout: '300ms' } } } });
  const all = await Promise.all(Array.from({ length: 40 }, () => gateway.infer('two')));
  assert.deepEqual([[...new Set(all.map((a) => a.status))], two.made], [[200], 1]);
  const ones = await Promise.all(Array.from({ length: 20 }, () => gateway.infer('one')));
  assert.deepEqual([...new Set(ones.map((a) => a.body))], ['{"one":"1.1"}']);
  const before = two.seen.length;
  assert.equal((await gateway.infer('other')).status, 503);
  assert.equal(two.seen.length, before);
  await two.stop();
  one.closeAllConnections();
  one.close();
});
