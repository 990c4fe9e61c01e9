// What two readers could frame differently never gets past the gateway: the back end writes down every byte that it is sent.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import path from 'node:path';
import { Fleet, ROOT } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const SMUGGLED = 'GET /v2/models/m/smuggled HTTP/1.1\r\nHost: x\r\n\r\n';

async function recorder(answer = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok') {
  const self = { bytes: '' };
  self.server = net.createServer((socket) => {
    socket.on('data', (d) => {
      self.bytes += d.toString('latin1');
      socket.write(answer, 'latin1');
    });
    socket.on('error', () => {});
  });
  self.server.listen(0, '127.0.0.1');
  await once(self.server, 'listening');
  self.server.unref();
  self.endpoint = `127.0.0.1:${self.server.address().port}`;
  return self;
}

async function gateway(back) {
  const routes = await fleet.file('routes.json', JSON.stringify({ models: { m: [{ endpoint: back.endpoint, instance: 'm-1' }] }, services: [{ model: 'm', path: '/site', access: 'Public' }] }));
  const proc = fleet.start('atoll gateway', ['gateway', '--listen', '127.0.0.1:0', '--static-routes', routes, '--threads', '1']);
  const [, url] = await proc.line(/^ready gateway (http:\/\/\S+)$/m);
  return { proc, url, port: Number(new URL(url).port) };
}

// Everything that comes back until the gateway closes, or until done says that it is enough.
function talk(port, bytes, done = () => false) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1');
    let got = Buffer.alloc(0);
    const timer = setTimeout(() => finish(), 5000);
    const finish = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(got);
    };
    socket.on('data', (d) => {
      got = Buffer.concat([got, d]);
      if (done(got)) finish();
    });
    socket.on('close', finish);
    socket.on('error', (error) => (error.code === 'ECONNRESET' ? finish() : reject(error)));
    socket.write(bytes, 'latin1');
  });
}

const POST = (lines, body = '') => `POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n${lines}\r\n${body}`;
const GET = (lines, line = 'GET /v2/models/m HTTP/1.1') => `${line}\r\n${lines}\r\n`;

// Each is followed by a request that must not be seen either.
const REFUSED = {
  'both lengths': POST('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
  'both lengths, the other way round': POST('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', '0\r\n\r\n'),
  'two lengths that differ': POST('Content-Length: 5\r\nContent-Length: 6\r\n', 'aaaaa'),
  'two lengths that agree': POST('Content-Length: 5\r\nContent-Length: 5\r\n', 'aaaaa'),
  'a list of lengths': POST('Content-Length: 5, 5\r\n', 'aaaaa'),
  'a length with a sign': POST('Content-Length: +5\r\n', 'aaaaa'),
  'a negative length': POST('Content-Length: -1\r\n'),
  'a hexadecimal length': POST('Content-Length: 0x5\r\n', 'aaaaa'),
  'a length that overflows': POST('Content-Length: 18446744073709551621\r\n', 'aaaaa'),
  'an empty length': POST('Content-Length: \r\n', 'aaaaa'),
  'a length with a space inside': POST('Content-Length: 5 5\r\n', 'aaaaa'),
  'bare LF after the request line': 'POST /v2/models/m/infer HTTP/1.1\nHost: x\r\nContent-Length: 0\r\n\r\n',
  'bare LF after a header': 'POST /v2/models/m/infer HTTP/1.1\r\nHost: x\nContent-Length: 0\r\n\r\n',
  'bare LF at the end': 'POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\n',
  'bare CR in a value': POST('X: a\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n'),
  'bare CR between headers': POST('X: a\r\rContent-Length: 0\r\n'),
  'obs-fold': POST('X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n'),
  'obs-fold by a tab': POST('Transfer-Encoding:\r\n\tchunked\r\n', '0\r\n\r\n'),
  'a folded first header': 'GET /v2/models/m HTTP/1.1\r\n Host: x\r\n\r\n',
  'a space before the colon': POST('Transfer-Encoding : chunked\r\n', '0\r\n\r\n'),
  'a tab before the colon': POST('Content-Length\t: 0\r\n'),
  'an empty header name': POST(': x\r\nContent-Length: 0\r\n'),
  'a header without a colon': POST('Content-Length 0\r\nContent-Length: 0\r\n'),
  'a NUL in a value': POST('X: a\0b\r\nContent-Length: 0\r\n'),
  'a NUL in a name': POST('X\0: a\r\nContent-Length: 0\r\n'),
  'a NUL in the target': GET('Host: x\r\n', 'GET /v2/models/m\0 HTTP/1.1'),
  'a control character in a value': POST('X: a\x01b\r\nContent-Length: 0\r\n'),
  'an encoding that is not known': POST('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n'),
  'chunked before another encoding': POST('Transfer-Encoding: chunked, identity\r\n', '0\r\n\r\n'),
  'gzip, chunked': POST('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'),
  'chunked twice': POST('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n'),
  'two encoding headers': POST('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
  'chunked in quotes': POST('Transfer-Encoding: "chunked"\r\n', '0\r\n\r\n'),
  'a vertical tab before chunked': POST('Transfer-Encoding: \x0bchunked\r\n', '0\r\n\r\n'),
  'chunked in HTTP/1.0': 'POST /v2/models/m/infer HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'a chunk size with a sign': POST('Transfer-Encoding: chunked\r\n', '+5\r\naaaaa\r\n0\r\n\r\n'),
  'a chunk size with 0x': POST('Transfer-Encoding: chunked\r\n', '0x5\r\naaaaa\r\n0\r\n\r\n'),
  'a negative chunk size': POST('Transfer-Encoding: chunked\r\n', '-1\r\n\r\n0\r\n\r\n'),
  'a chunk size that overflows': POST('Transfer-Encoding: chunked\r\n', '10000000000000005\r\naaaaa\r\n0\r\n\r\n'),
  'a huge chunk size': POST('Transfer-Encoding: chunked\r\n', 'ffffffffffffffff\r\naaaaa\r\n0\r\n\r\n'),
  'an empty chunk size': POST('Transfer-Encoding: chunked\r\n', '\r\naaaaa\r\n0\r\n\r\n'),
  'a chunk size ended by LF': POST('Transfer-Encoding: chunked\r\n', '5\naaaaa\r\n0\r\n\r\n'),
  'a chunk longer than it says': POST('Transfer-Encoding: chunked\r\n', '5\r\naaaaaa\r\n0\r\n\r\n'),
  'chunk data ended by LF': POST('Transfer-Encoding: chunked\r\n', '5\r\naaaaa\n0\r\n\r\n'),
  'a chunk extension with a bare LF': POST('Transfer-Encoding: chunked\r\n', '5;a\nb\r\naaaaa\r\n0\r\n\r\n'),
  'a chunk extension with a bare CR': POST('Transfer-Encoding: chunked\r\n', '5;a\rb\r\naaaaa\r\n0\r\n\r\n'),
  'a space before the chunk size': POST('Transfer-Encoding: chunked\r\n', ' 5\r\naaaaa\r\n0\r\n\r\n'),
  'a trailer that is no header': POST('Transfer-Encoding: chunked\r\n', '0\r\nno colon\r\n\r\n'),
  'no Host': GET(''),
  'two Hosts': GET('Host: x\r\nHost: y\r\n'),
  'a Host with a slash': GET('Host: x/y\r\n'),
  'a Host with userinfo': GET('Host: a@b\r\n'),
  'a Host with a space': GET('Host: a b\r\n'),
  'no version': GET('Host: x\r\n', 'GET /v2/models/m'),
  'HTTP/2.0 in text': GET('Host: x\r\n', 'GET /v2/models/m HTTP/2.0'),
  'HTTP/1.10': GET('Host: x\r\n', 'GET /v2/models/m HTTP/1.10'),
  'http/1.1 in small letters': GET('Host: x\r\n', 'GET /v2/models/m http/1.1'),
  'two spaces': GET('Host: x\r\n', 'GET  /v2/models/m HTTP/1.1'),
  'a tab for a space': GET('Host: x\r\n', 'GET\t/v2/models/m HTTP/1.1'),
  'a space in the target': GET('Host: x\r\n', 'GET /v2/models/m HTTP/1.1\r\nX: HTTP/1.1').replace('models/m', 'models/ m'),
  'a space in front': ` ${GET('Host: x\r\n')}`,
  'another model by ..': GET('Host: x\r\n', 'GET /v2/models/m/../../../admin HTTP/1.1'),
  'another model by %2e%2e': GET('Host: x\r\n', 'GET /v2/models/m/%2e%2e/admin HTTP/1.1'),
  'a service left by ..': GET('Host: x\r\n', 'GET /site/../admin HTTP/1.1'),
  'a target with a fragment': GET('Host: x\r\n', 'GET /v2/models/m#x HTTP/1.1'),
};

it('HTTP/1.1: what is malformed is refused, and nothing of it or behind it is passed on', async () => {
  const back = await recorder();
  const gw = await gateway(back);
  const wrong = [];
  for (const [name, request] of Object.entries(REFUSED)) {
    back.bytes = '';
    const got = (await talk(gw.port, request + SMUGGLED, (g) => (g.toString().match(/HTTP\/1\.1 \d/g) ?? []).length > 1)).toString();
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(got)?.[1]);
    const answers = (got.match(/HTTP\/1\.1 \d{3}/g) ?? []).length;
    // A path that is merely wrong is no framing error: the next request on the connection is one.
    const nobody = name.includes(' by ..') || name.includes(' by %');
    if (!(status >= 400 && status < 600) || (!nobody && (answers !== 1 || back.bytes !== '')) || (nobody && /admin/.test(back.bytes))) wrong.push({ name, status, answers, bytes: back.bytes });
  }
  assert.deepEqual(wrong, []);
});

it('HTTP/1.1: what is unusual but well-formed arrives once, in one form, without what is between neighbours only', async () => {
  const back = await recorder();
  const gw = await gateway(back);
  const cases = [
    [POST('Transfer-Encoding: chunked\r\nConnection: close\r\n', '3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n'), /^POST \/v2\/models\/m\/infer HTTP\/1\.1\r\nHost: [^\r]*\r\nContent-Length: 5\r\n[\s\S]*\r\n\r\nabcde$/],
    [POST('transfer-encoding: CHUNKED\r\nConnection: close\r\n', '0\r\n\r\n'), /Content-Length: 0\r\n[\s\S]*\r\n\r\n$/],
    [POST('Content-Length: 2\r\nConnection: close, X-Secret, Content-Type\r\nX-Secret: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\nProxy-Authorization: Basic x\r\nContent-Type: text/plain\r\n', 'ab'), /^(?![\s\S]*(x-secret|keep-alive|\nte:|proxy-auth|transfer-encoding|content-type))/i],
    [GET('Host: x\r\nConnection: close, traceparent, X-Request-Id\r\n'), /traceparent: 00-/],
  ];
  for (const [request, want] of cases) {
    back.bytes = '';
    const got = await talk(gw.port, request);
    assert.match(got.toString(), /^HTTP\/1\.1 200 /, request);
    assert.match(back.bytes, want);
    assert.equal(back.bytes.match(/HTTP\/1\.1/g).length, 1);
    assert.doesNotMatch(back.bytes, /X-Trailer|chunked/i);
  }
});

// HTTP/2 by hand: clients in libraries would not send these.
const frame = (type, flags, id, payload) => Buffer.concat([Buffer.from([payload.length >> 16, (payload.length >> 8) & 255, payload.length & 255, type, flags, 0, 0, 0, id]), payload]);
const literal = (text) => Buffer.concat([Buffer.from([Buffer.byteLength(text, 'latin1')]), Buffer.from(text, 'latin1')]);
const headers = (list) => Buffer.concat(list.map(([name, value]) => Buffer.concat([Buffer.from([0]), literal(name), literal(value)])));
const H2 = (list, body) => Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0, Buffer.alloc(0)),
  frame(1, body === undefined ? 5 : 4, 1, headers(list)), ...(body === undefined ? [] : [frame(0, 1, 1, Buffer.from(body))]),
]);
const PSEUDO = [[':method', 'POST'], [':scheme', 'http'], [':path', '/v2/models/m/infer'], [':authority', 'x']];
const change = (name, value) => PSEUDO.map(([n, v]) => [n, n === name ? value : v]);
const H2_REFUSED = {
  'CRLF in a value': [[...PSEUDO, ['x', `a\r\n\r\n${SMUGGLED}`]]],
  'LF in a value': [[...PSEUDO, ['x', 'a\nTransfer-Encoding: chunked']]],
  'CR in a value': [[...PSEUDO, ['x', 'a\rb']]],
  'NUL in a value': [[...PSEUDO, ['x', 'a\0b']]],
  'CRLF in a name': [[...PSEUDO, ['x: y\r\nz', 'a']]],
  'a colon in a name': [[...PSEUDO, ['x:y', 'a']]],
  'a space in a name': [[...PSEUDO, ['x y', 'a']]],
  'capital letters': [[...PSEUDO, ['X-Up', 'a']]],
  'an empty name': [[...PSEUDO, ['', 'a']]],
  'transfer-encoding': [[...PSEUDO, ['transfer-encoding', 'chunked']], '0\r\n\r\n'],
  'connection': [[...PSEUDO, ['connection', 'x']]],
  'upgrade': [[...PSEUDO, ['upgrade', 'websocket']]],
  'te other than trailers': [[...PSEUDO, ['te', 'gzip']]],
  'a length that is more than comes': [[...PSEUDO, ['content-length', '50']], 'abc'],
  'a length that is less than comes': [[...PSEUDO, ['content-length', '1']], 'abc'],
  'a length that is none': [[...PSEUDO, ['content-length', '3x']], 'abc'],
  'two lengths': [[...PSEUDO, ['content-length', '3'], ['content-length', '4']], 'abc'],
  'CRLF in the path': [change(':path', '/v2/models/m/infer HTTP/1.1\r\nHost: y\r\n\r\nGET /')],
  'a space in the path': [change(':path', '/v2/models/m/infer HTTP/1.1')],
  'an empty path': [change(':path', '')],
  'no path': [PSEUDO.filter(([n]) => n !== ':path')],
  'two paths': [[...PSEUDO, [':path', '/v2/models/m']]],
  'CRLF in the method': [change(':method', 'GET / HTTP/1.1\r\nX: y\r\n\r\nPOST')],
  'a space in the method': [change(':method', 'GET /')],
  'CRLF in the authority': [change(':authority', 'x\r\nX: y')],
  'userinfo in the authority': [change(':authority', 'a@b')],
  'authority and a host that differs': [[...PSEUDO, ['host', 'y']]],
  'a pseudo header behind others': [[['x', 'y'], ...PSEUDO]],
  'a pseudo header that is not known': [[...PSEUDO, [':proto', 'x']]],
  'a status in a request': [[...PSEUDO, [':status', '200']]],
};

it('HTTP/2: what could be put into HTTP/1.1 as something else is refused, and nothing is passed on', async () => {
  const back = await recorder();
  const gw = await gateway(back);
  const wrong = [];
  // Ends when the stream does: RST_STREAM, GOAWAY, or HEADERS of an answer with its end.
  const over = (g) => {
    for (let at = 0; at + 9 <= g.length;) {
      const len = g.readUIntBE(at, 3);
      if (at + 9 + len > g.length) return null;
      const type = g[at + 3];
      if (type === 3 || type === 7) return 'refused';
      if (type === 1 && g.readUInt32BE(at + 5) === 1) return g[at + 9] === 0x88 ? '200' : 'answered';
      at += 9 + len;
    }
    return null;
  };
  for (const [name, [list, body]] of Object.entries(H2_REFUSED)) {
    back.bytes = '';
    const how = over(await talk(gw.port, H2(list, body).toString('latin1'), (g) => over(g) !== null));
    if ((how !== 'refused' && how !== 'answered') || back.bytes !== '') wrong.push({ name, how, bytes: back.bytes });
  }
  assert.deepEqual(wrong, []);
  back.bytes = '';
  assert.equal(over(await talk(gw.port, H2([...PSEUDO, ['content-length', '3'], ['x', 'y']], 'abc').toString('latin1'), (g) => over(g) !== null)), '200'); // and what is right gets through
  assert.match(back.bytes, /^POST \/v2\/models\/m\/infer HTTP\/1\.1\r\n[\s\S]*\r\n\r\nabc$/);
});

it('gRPC: names and sizes that would be something else in a request to the replica are refused', async () => {
  const back = await recorder();
  const gw = await gateway(back);
  const proto = grpc.loadPackageDefinition(await protoLoader.load(path.join(ROOT, 'tests/e2e/lib/oip.proto'), { longs: Number, keepCase: true }));
  const client = new proto.inference.GRPCInferenceService(`127.0.0.1:${gw.port}`, grpc.credentials.createInsecure());
  const call = (method, request) => new Promise((resolve) => client[method](request, (error) => resolve(error?.code ?? 0)));
  for (const name of ['m\r\nX: y', 'm HTTP/1.1\r\n\r\n', 'm/../admin', '../m', 'm?x', 'm#x', 'm%0d%0a', 'm\0', '']) {
    assert.notEqual(await call('ModelMetadata', { name }), 0, JSON.stringify(name));
    assert.notEqual(await call('ModelInfer', { model_name: name, inputs: [] }), 0, JSON.stringify(name));
  }
  const tensor = (shape, datatype, bytes) => ({ model_name: 'm', inputs: [{ name: 'x', datatype, shape }], raw_input_contents: [Buffer.alloc(bytes)] });
  for (const request of [
    tensor([2], 'FP32', 7), tensor([2], 'FP32', 9), tensor([-1], 'FP32', 4), tensor([2 ** 52, 2 ** 52], 'INT8', 1), tensor([2 ** 52, 4096], 'INT64', 8),
    tensor([1], 'FP33', 4), tensor([1], '', 4), tensor([1], 'BYTES', 3), { ...tensor([1], 'FP32', 4), raw_input_contents: [] }, { ...tensor([1], 'FP32', 4), raw_input_contents: [Buffer.alloc(4), Buffer.alloc(4)] },
  ]) {
    const code = await call('ModelInfer', request);
    assert.equal(code, grpc.status.INVALID_ARGUMENT, JSON.stringify(request));
  }
  assert.equal(await call('ModelInfer', { ...tensor([1], 'FP32', 4), model_version: '1/../../admin' }) === 0, false);
  client.close();
  assert.doesNotMatch(back.bytes, /admin|X: y/);
  assert.equal(back.bytes, '');
});

it('a replica whose answer could be read in two ways is not passed on', async () => {
  for (const [name, answer] of Object.entries({
    'both lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde',
    'a bare LF': 'HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\nabc',
    'a NUL': 'HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 3\r\n\r\nabc',
    'obs-fold': 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nabc',
    'a chunk size that overflows': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n',
    'an answer nobody asked for': 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
    'garbage': 'SSH-2.0-OpenSSH_9.2\r\n',
  })) {
    const gw = await gateway(await recorder(answer));
    const got = (await talk(gw.port, POST('Content-Length: 2\r\nConnection: close\r\n', 'ab'))).toString();
    assert.match(got, /^HTTP\/1\.1 502 /, `${name}: ${got.slice(0, 200)}`);
  }
});
