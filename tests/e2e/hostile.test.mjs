// Bytes that no decent client sends, against the real server over TLS: each is refused or dropped, none of it costs lasting
// memory, and decent clients are served before, meanwhile and after.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { before } from 'node:test';
import { connect as connectTcp } from 'node:net';
import { connect } from 'node:tls';
import { configMap, eventually, Fleet } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;
let admin;
let at;
let restingBytes;

const residentBytes = async () => Number(/^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${s.proc.pid}/status`, 'utf8'))[1]) * 1024;
const healthy = async () => assert.equal((await call(admin, 'GET', '/apis/atoll.dev/v1/sites')).status, 200);

before(async () => {
  // Sanitizers keep what was freed for a while: as little as they can, so that memory can be watched.
  s = await fleet.server({ env: { ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:quarantine_size_mb=4` } });
  admin = await credentials(s.kubeconfig);
  const url = new URL(admin.url);
  at = { host: url.hostname, port: Number(url.port) };
  await s.apply(configMap('steady', { a: '1' }));
  restingBytes = await residentBytes();
});

// Send pieces as an authenticated client and collect what comes until the server ends the connection or `ms` have passed.
function send(pieces, { ms = 3000, gapMs = 0, authenticated = true, end = false } = {}) {
  return new Promise((resolve) => {
    const { ca, cert, key } = admin;
    const socket = connect({ ...at, ca, ...(authenticated ? { cert, key } : {}), servername: 'localhost', checkServerIdentity: () => undefined });
    let text = '';
    const done = (closed) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ text, closed, status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0) });
    };
    const timer = setTimeout(() => done(false), ms);
    socket.on('data', (d) => (text += d.toString('latin1')));
    socket.on('error', () => done(true));
    socket.on('close', () => done(true));
    socket.on('secureConnect', async () => {
      for (const piece of [pieces].flat()) {
        if (socket.destroyed) return;
        if (!socket.write(piece)) await Promise.race([new Promise((r) => socket.once('drain', r)), new Promise((r) => socket.once('close', r))]);
        if (gapMs) await new Promise((r) => setTimeout(r, gapMs));
      }
      if (end) socket.end();
    });
  });
}

const COLLECTION = '/api/v1/namespaces/default/configmaps';
const post = (body, headers = '', target = COLLECTION) => `POST ${target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}Connection: close\r\n\r\n${body}`;
const count = async () => (await call(admin, 'GET', COLLECTION)).body.items.length;

it('random bytes, before and after the TLS handshake', async () => {
  for (let i = 0; i < 40; i++) {
    await new Promise((resolve) => {
      const socket = connectTcp(at, () => socket.end(randomBytes(1 + i * 50)));
      socket.on('error', resolve);
      socket.on('close', resolve);
      socket.resume();
    });
    const r = await send(randomBytes(1 + i * 50), { end: true });
    assert.ok(r.closed, 'the connection is ended');
    assert.ok(r.status === 0 || r.status >= 400, r.text.slice(0, 100));
  }
  await healthy();
});

it('requests cut off at each place change nothing', async () => {
  const before = await count();
  const whole = post(JSON.stringify(configMap('cut', { k: 'v' })));
  for (let n = 1; n < whole.length; n += 7) {
    const r = await send(whole.slice(0, n), { end: true });
    assert.ok(r.closed);
    assert.ok(r.status === 0 || r.status >= 400, r.text.slice(0, 100));
  }
  assert.equal(await count(), before);
  await healthy();
});

it('slow requests do not hold others up', async () => {
  const slow = Array.from({ length: 100 }, () => send('GET /apis HTTP/1.1\r\nX-Slow: yes\r\n'.split(''), { gapMs: 50, ms: 2500 }));
  const begin = Date.now();
  for (let i = 0; i < 20; i++) await healthy();
  assert.ok(Date.now() - begin < 10_000, `${Date.now() - begin} ms`);
  for (const r of await Promise.all(slow)) assert.equal(r.text, '');
});

it('shapes of request smuggling are refused, and the bytes behind them are never a request', async () => {
  const inner = `DELETE ${COLLECTION}/steady HTTP/1.1\r\nHost: x\r\n\r\n`;
  const shapes = {
    'two lengths': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: ${inner.length}\r\n\r\n${inner}`,
    'length list': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length: 0, ${inner.length}\r\n\r\n${inner}`,
    'length and chunks': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${inner}`,
    'chunks spelled oddly': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${inner}`,
    'chunks twice': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n${inner}`,
    'chunks with a tab': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n${inner}`,
    'space before the colon': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length : ${inner.length}\r\n\r\n${inner}`,
    'folded header': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nX: a\r\n Content-Length: ${inner.length}\r\n\r\n${inner}`,
    'signed length': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n${inner}`,
    'negative length': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n${inner}`,
    'endless length': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n${inner}`,
    'bad chunk size': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n${inner}`,
    'endless chunk size': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n${inner}`,
    'bare line feeds': `POST ${COLLECTION} HTTP/1.1\nHost: x\nContent-Length: 0\n\n${inner}`,
    'bare carriage return': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\rContent-Length: 3\r\n\r\n${inner}`,
    'no host': `POST ${COLLECTION} HTTP/1.1\r\nContent-Length: 0\r\n\r\n${inner}`,
    'two hosts': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 0\r\n\r\n${inner}`,
    'NUL in a header': `POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n${inner}`,
    'odd version': `POST ${COLLECTION} HTTP/9.9\r\nHost: x\r\nContent-Length: 0\r\n\r\n${inner}`,
  };
  for (const [name, bytes] of Object.entries(shapes)) {
    const r = await send(bytes);
    assert.ok(r.status >= 400 && r.status < 600, `${name}: ${r.text.slice(0, 80)}`);
    assert.ok(r.closed, `${name}: the connection is ended`);
    assert.equal(r.text.match(/HTTP\/1\.1 \d/g).length, 1, `${name}: one answer`);
    assert.equal((await call(admin, 'GET', `${COLLECTION}/steady`)).status, 200, name);
  }
});

it('bodies of 100 MB, said and unsaid, are refused early', async () => {
  const said = await send([`POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n`]);
  assert.equal(said.status, 413);
  const piece = Buffer.alloc(1 << 20, 120);
  const chunk = Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]);
  for (let round = 0; round < 5; round++) {
    const unsaid = await send([`POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`, ...Array(100).fill(chunk)], { ms: 20_000 });
    assert.ok(unsaid.closed);
    assert.ok(unsaid.status === 413 || unsaid.status === 0, unsaid.text.slice(0, 80)); // 0: reset while still sending
  }
  await healthy();
});

it('deep, endless and broken JSON', async () => {
  const bodies = {
    'a million brackets': '['.repeat(1_000_000),
    'deep object': '{"a":'.repeat(200_000),
    'deep and closed': `${'['.repeat(5000)}${']'.repeat(5000)}`,
    'deep in an object': `{"metadata":{"name":"x"},"data":${'{"a":'.repeat(100)}1${'}'.repeat(100)}}`,
    'duplicate keys': '{"metadata":{"name":"a","name":"B"}}',
    'huge number': `{"metadata":{"name":"x","generation":${'9'.repeat(5000)}}}`,
    'long string': `{"metadata":{"name":"${'x'.repeat(1_000_000)}"}}`,
    'trailing text': '{"metadata":{"name":"x"}} {"metadata":{"name":"y"}}',
    'NUL': '{"metadata":{"name":"x\\u0000y"}}',
    'lone surrogate': '{"metadata":{"name":"\\ud800"}}',
    nothing: '',
    'not JSON': 'metadata: {name: x}',
    'a number': '42',
    'many keys': `{"metadata":{"name":"x","labels":{${Array.from({ length: 50_000 }, (_, i) => `"k${i}":"!"`).join(',')}}}}`,
  };
  const before = await count();
  for (const [name, body] of Object.entries(bodies)) {
    const r = await send(post(body), { ms: 20_000 });
    assert.ok([400, 413, 422].includes(r.status), `${name}: ${r.text.slice(0, 200)}`);
  }
  assert.equal(await count(), before);
});

it('invalid UTF-8 in bodies, paths, queries and headers', async () => {
  const raw = (parts) => Buffer.concat(parts.map((p) => (typeof p === 'string' ? Buffer.from(p) : Buffer.from(p))));
  for (const bad of [[0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82]]) {
    const body = raw(['{"metadata":{"name":"x"},"data":{"k":"', bad, '"}}']);
    const r = await send(raw([`POST ${COLLECTION} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`, body]));
    assert.equal(r.status, 400, `${bad}: ${r.text.slice(0, 200)}`);
    for (const target of [raw([COLLECTION, '/', bad]), raw([COLLECTION, '?labelSelector=', bad])]) {
      const q = await send(raw(['GET ', target, ' HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n']));
      assert.ok(q.status >= 400 && q.status < 500, `${q.text.slice(0, 100)}`);
    }
  }
  for (const target of [`${COLLECTION}/%ff`, `${COLLECTION}/%00`, `${COLLECTION}/%2e%2e`, `${COLLECTION}/..%2fsecrets`, `${COLLECTION}/a%2fb`, '/apis/%', '/apis/%zz']) {
    const r = await send(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    assert.ok(r.status >= 400 && r.status < 500, `${target}: ${r.text.slice(0, 100)}`);
  }
});

it('too many headers, too long ones, too long a path', async () => {
  const many = await send(`GET /apis HTTP/1.1\r\nHost: x\r\n${'X: y\r\n'.repeat(100_000)}\r\n`);
  assert.ok([431, 400].includes(many.status), many.text.slice(0, 80));
  const long = await send(`GET /apis HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(10_000_000)}\r\n\r\n`);
  assert.ok([431, 400, 0].includes(long.status), long.text.slice(0, 80));
  const path = await send(`GET /${'a/'.repeat(40_000)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  assert.ok([400, 404, 413, 414, 431].includes(path.status), path.text.slice(0, 80));
  const selector = await send(`GET ${COLLECTION}?labelSelector=${'a,'.repeat(5000)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  assert.ok(selector.status === 200 || (selector.status >= 400 && selector.status < 500), selector.text.slice(0, 80));
});

it('patches that are bombs', async () => {
  const target = `${COLLECTION}/steady`;
  const patch = (body, type) => call(admin, 'PATCH', target, body, { 'Content-Type': type });
  const copies = Array.from({ length: 40 }, (_, i) => ({ op: 'copy', from: '/metadata/annotations', path: `/metadata/annotations/x${i}` }));
  const r = await patch([{ op: 'add', path: '/metadata/annotations', value: { a: 'x'.repeat(1000) } }, ...copies], 'application/json-patch+json');
  assert.ok(r.status >= 400 && r.status < 500, JSON.stringify(r.body).slice(0, 200));
  const long = [{ op: 'add', path: '/data/a', value: 'x'.repeat(1 << 20) }, ...Array.from({ length: 9000 }, (_, i) => ({ op: 'copy', from: '/data/a', path: `/data/x${i}` }))];
  const l = await patch(long, 'application/json-patch+json');
  assert.equal(l.status, 422, JSON.stringify(l.body).slice(0, 200));
  assert.ok((await patch(Array.from({ length: 200_000 }, () => ({ op: 'test', path: '/kind', value: 'ConfigMap' })), 'application/json-patch+json')).status >= 200);
  assert.ok((await patch('{"data":'.repeat(10_000), 'application/merge-patch+json')).status >= 400);
  assert.ok((await patch('{}', 'application/x-nothing')).status === 415);
  const live = await call(admin, 'GET', target);
  assert.deepEqual(live.body.data, { a: '1' });
});

it('broken protobuf and broken WebSocket handshakes', async () => {
  for (let i = 0; i < 30; i++) {
    const body = Buffer.concat([Buffer.from('k8s\0'), randomBytes(i * 20)]);
    const r = await send(Buffer.concat([Buffer.from(`POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.kubernetes.protobuf\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`), body]));
    assert.ok(r.status >= 400 && r.status < 500, r.text.slice(0, 80));
  }
  const upgrade = await send('GET /api/v1/namespaces/default/pods/none/exec?command=x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n');
  assert.equal(upgrade.status, 400);
});

it('strangers in great number', async () => {
  const all = await Promise.all(Array.from({ length: 300 }, () => send(`GET ${COLLECTION} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer forged\r\nConnection: close\r\n\r\n`, { authenticated: false, ms: 20_000 })));
  for (const r of all) assert.ok(r.status === 401 || r.status === 429, String(r.status)); // 429: who guesses is slowed down
  await healthy();
});

it('after all that the server is the same process, serves, is ready, and holds no more memory', async () => {
  assert.ok(!s.proc.ended);
  assert.equal((await call(admin, 'GET', `${COLLECTION}/steady`)).body.data.a, '1');
  assert.equal((await call(admin, 'GET', '/readyz')).body, 'ok');
  // A second time, the costliest shapes: what the allocator keeps is kept already.
  const now = await residentBytes();
  for (let i = 0; i < 10; i++) await send(post(`{"a":"${'x'.repeat(2 << 20)}"}`), { ms: 10_000 });
  const later = await eventually('connections are gone', async () => {
    const metrics = (await call(admin, 'GET', '/metrics')).body;
    return /^atoll_api_requests_waiting 0$/m.test(metrics) && (await residentBytes());
  });
  const mib = (bytes) => `${Math.round(bytes / 1048576)} MiB`;
  const story = `${mib(restingBytes)} at the start, then ${mib(now)}, then ${mib(later)}`;
  assert.ok(later < now + (16 << 20), `grows: ${story}`); // what the allocator keeps, it has kept already
  assert.ok(later < restingBytes + (200 << 20), story);
});
