// HTTP/2 clients that flood, and what translation to HTTP/1.1 must not let through: the gateway ends them or bears them, in
// bounded memory, and goes on serving the others.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { Fleet } from './lib/atoll.mjs';
import { replica, staticGateway } from './lib/gateway.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const [DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, WINDOW, CONTINUATION] = [0, 1, 2, 3, 4, 6, 8, 9];

function frame(type, flags, id, payload = Buffer.alloc(0)) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}

// HPACK without compression: literal fields, not indexed.
const text = (s) => {
  const b = Buffer.from(s, 'latin1');
  assert.ok(b.length < 127 + 128 * 127);
  return b.length < 127 ? Buffer.concat([Buffer.from([b.length]), b]) : Buffer.concat([Buffer.from([127, ((b.length - 127) & 127) | 128, (b.length - 127) >> 7]), b]);
};
const field = (name, value, prefix = 0) => Buffer.concat([Buffer.from([prefix]), text(name), text(value)]);
const request = (path = '/v2/models/m', more = [], method = 'GET') =>
  Buffer.concat([field(':method', method), field(':scheme', 'http'), field(':authority', 'x'), field(':path', path), ...more.map(([n, v]) => field(n, v))]);

async function connect(gateway) {
  const { hostname, port } = new URL(gateway.url);
  const socket = net.connect(Number(port), hostname);
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0)]));
  socket.got = Buffer.alloc(0);
  socket.on('data', (d) => (socket.got = Buffer.concat([socket.got, d]).subarray(-65536)));
  return socket;
}

// Writes pieces until all are written or the connection is gone.
async function flood(socket, pieces) {
  for (const piece of pieces) {
    if (socket.destroyed) return;
    if (!socket.write(piece)) await Promise.race([once(socket, 'drain').catch(() => {}), once(socket, 'close').catch(() => {}), new Promise((r) => setTimeout(r, 1000))]);
  }
}

function* times(n, make) {
  for (let i = 0; i < n; i++) yield make(i);
}

const many = (n, make) => Buffer.concat([...times(n, make)]);
const FLOODS = {
  'pings that nobody waits for': () => times(40, () => many(2000, () => frame(PING, 0, 0, Buffer.alloc(8)))),
  'settings without end': () => times(40, () => many(2000, () => frame(SETTINGS, 0, 0))),
  'large settings': () => times(80, () => many(10, () => frame(SETTINGS, 0, 0, many(1000, (i) => Buffer.from([0, 200, 0, 0, 0, i & 255]))))),
  'streams opened and cancelled': () => times(40, (k) => many(200, (i) => Buffer.concat([frame(HEADERS, 4, 2 * (k * 200 + i) + 1, request('/v2/models/m/infer', [], 'POST')), frame(RST, 0, 2 * (k * 200 + i) + 1, Buffer.from([0, 0, 0, 8]))]))),
  'requests complete and cancelled': () => times(40, (k) => many(200, (i) => Buffer.concat([frame(HEADERS, 5, 2 * (k * 200 + i) + 1, request()), frame(RST, 0, 2 * (k * 200 + i) + 1, Buffer.from([0, 0, 0, 8]))]))),
  'a head that never ends': () => [frame(HEADERS, 1, 1, request()), ...times(3000, () => frame(CONTINUATION, 0, 1, field('x-a', 'y'.repeat(16000))))],
  'a head of nothing that never ends': () => [frame(HEADERS, 1, 1, request()), ...times(40, () => many(2000, () => frame(CONTINUATION, 0, 1)))],
  'a table entry told ten thousand times': () => [frame(HEADERS, 5, 1, Buffer.concat([request(), field('x-big', 'z'.repeat(3900), 0x40), Buffer.alloc(10_000, 0xbe)]))],
  'the same in a hundred streams': () => times(100, (k) => frame(HEADERS, 5, 2 * k + 1, Buffer.concat([request(), k === 0 ? field('x-big', 'z'.repeat(3900), 0x40) : Buffer.alloc(0), Buffer.alloc(10_000, 0xbe)]))),
  'priorities without end': () => times(40, () => many(2000, (i) => frame(PRIORITY, 0, 2 * i + 1, Buffer.from([0, 0, 0, 0, 16])))),
  'windows without end': () => times(40, () => many(2000, () => frame(WINDOW, 0, 0, Buffer.from([0, 0, 0, 1])))),
  'empty data': () => [frame(HEADERS, 4, 1, request('/v2/models/m/infer', [], 'POST')), ...times(40, () => many(2000, () => frame(DATA, 0, 1)))],
  'streams that are never finished': () => times(40, (k) => many(100, (i) => frame(HEADERS, 4, 2 * (k * 100 + i) + 1, request('/v2/models/m/infer', [], 'POST')))),
};

it('floods end or are borne in bounded memory, and others are served meanwhile', async (t) => {
  process.env.ASAN_OPTIONS = [process.env.ASAN_OPTIONS, 'quarantine_size_mb=1'].filter(Boolean).join(':');
  const back = await replica();
  const gateway = await staticGateway(fleet, { m: [back.endpoint] });
  const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${gateway.proc.pid}/status`, 'utf8'))[1]);
  assert.equal((await gateway.infer('m')).status, 200);
  for (const [name, pieces] of Object.entries(FLOODS)) {
    const before = memory();
    const sockets = await Promise.all([connect(gateway), connect(gateway)]);
    const floods = Promise.all(sockets.map((s) => flood(s, pieces())));
    const a = await gateway.infer('m');
    assert.equal(a.status, 200, `${name}: ${JSON.stringify(a)}`);
    await floods;
    assert.equal((await gateway.infer('m')).status, 200, name);
    t.diagnostic(`${name}: ${memory() - before} KiB more, ${sockets.filter((s) => s.closed).length} of 2 ended`);
    assert.ok(memory() - before < 64 * 1024, `${name}: ${before} KiB became ${memory()} KiB`);
    for (const s of sockets) s.destroy();
  }
  assert.equal(gateway.proc.ended, false);
  await back.stop();
});

it('what has no place in HTTP/1.1 is not translated into it', async () => {
  const back = await replica();
  const gateway = await staticGateway(fleet, { m: [back.endpoint] });
  const cases = [
    ['/v2/models/m', [['x-a', 'b\r\nx-smuggled: 1']]],
    ['/v2/models/m', [['x-a', 'b\nx-smuggled: 1']]],
    ['/v2/models/m', [['x-a', 'b\0c']]],
    ['/v2/models/m', [['x-a\r\nx-smuggled', '1']]],
    ['/v2/models/m', [['x-a: 1\r\nx-smuggled', '1']]],
    ['/v2/models/m', [['X-Upper', '1']]],
    ['/v2/models/m', [['x a', '1']]],
    ['/v2/models/m', [['', '1']]],
    ['/v2/models/m', [['transfer-encoding', 'chunked']]],
    ['/v2/models/m', [['connection', 'x-smuggled']]],
    ['/v2/models/m', [['upgrade', 'h2c']]],
    ['/v2/models/m', [['te', 'gzip']]],
    ['/v2/models/m', [['host', 'other']]],
    ['/v2/models/m', [['content-length', '5']]],
    ['/v2/models/m', [['content-length', '0'], ['content-length', '0']]],
    ['/v2/models/m', [['content-length', '+0']]],
    ['/v2/models/m', [[':path', '/v2/models/m/infer']]],
    ['/v2/models/m', [[':protocol', 'websocket']]],
    ['/v2/models/m HTTP/1.1\r\nx-smuggled: 1', []],
    ['/v2/models/m\r\n\r\nGET /v2/models/m/smuggled HTTP/1.1', []],
    ['/v2/models/m x', []],
    ['http://x/v2/models/m', []],
    ['*', []],
    ['', []],
  ];
  for (const [path, more] of cases) {
    const before = back.seen.length;
    const socket = await connect(gateway);
    socket.write(Buffer.concat([frame(HEADERS, 5, 1, request(path, more)), frame(PING, 0, 0, Buffer.from('12345678'))]));
    // The echo of the PING, or the end: by then the request was decided about.
    while (!socket.destroyed && !socket.got.includes('12345678')) await Promise.race([once(socket, 'data').catch(() => {}), once(socket, 'close').catch(() => {})]);
    await gateway.infer('m');
    const seen = back.seen.slice(before, -1);
    assert.deepEqual(seen.map((s) => [s.url, s.headers]), [], JSON.stringify([path, more]));
    socket.destroy();
  }
  for (const s of back.seen) assert.ok(!JSON.stringify(s).includes('smuggled'));
  await back.stop();
});
