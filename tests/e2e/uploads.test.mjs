// Bodies of plain services that the gateway passes on before they are whole, by HTTP/1.1 and HTTP/2 on both sides.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { eventually, Fleet } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const MIB = 1 << 20;

// answer(req, res), where HTTP/2 looks like HTTP/1.1.
async function replica(answer, version = 1) {
  const self = { seen: 0, sockets: new Set() };
  self.server = (version === 2 ? http2 : http).createServer((req, res) => {
    self.seen++;
    req.on('error', () => {});
    res.on('error', () => {});
    answer(req, res, self);
  });
  self.server.on('connection', (s) => self.sockets.add(s.on('close', () => self.sockets.delete(s))));
  self.server.listen(0, '127.0.0.1');
  await once(self.server, 'listening');
  self.server.unref();
  self.endpoint = `127.0.0.1:${self.server.address().port}`;
  self.stop = () => {
    for (const s of self.sockets) s.destroy();
    return new Promise((done) => self.server.close(done));
  };
  return self;
}

async function gateway(endpoints, { version = 1, args = [], policies = {} } = {}) {
  const routes = await fleet.file('routes.json', JSON.stringify({
    models: { files: endpoints.map((endpoint, i) => ({ endpoint, instance: `files-${i}`, ...(version === 2 ? { protocol: 'h2c' } : {}) })) },
    services: [{ model: 'files', path: '/' }],
    policies,
  }));
  const proc = fleet.start('atoll gateway', ['gateway', '--listen', '127.0.0.1:0', '--static-routes', routes, '--threads', '1', ...args]);
  const [, url] = await proc.line(/^ready gateway (https?:\/\/\S+)$/m);
  return { proc, url, port: Number(new URL(url).port) };
}

// A request whose body is written by the caller: {write, end, answer: {status, text}}.
function upload(gw, version, headers = {}) {
  let writable, answer;
  if (version === 2) {
    const session = http2.connect(gw.url);
    session.on('error', () => {});
    writable = session.request({ ':method': 'PUT', ':path': '/up', ...headers });
    answer = new Promise((resolve, reject) => {
      let status, text = '';
      writable.on('response', (h) => (status = h[':status']));
      writable.setEncoding('utf8').on('data', (d) => (text += d));
      writable.on('end', () => resolve({ status, text }) || session.close());
      writable.on('error', reject);
    });
  } else {
    answer = new Promise((resolve, reject) => {
      writable = http.request({ port: gw.port, method: 'PUT', path: '/up', headers, agent: false }, async (res) => {
        let text = '';
        for await (const c of res) text += c;
        resolve({ status: res.statusCode, text, headers: res.headers });
      });
      writable.on('error', reject);
    });
  }
  answer.catch(() => {});
  return { writable, answer };
}

const digest = (req, res) => {
  const hash = crypto.createHash('sha256');
  let n = 0;
  req.on('data', (d) => hash.update(d) && (n += d.length));
  req.on('end', () => res.end(`${n} ${hash.digest('hex')} ${req.headers['content-length'] ?? req.headers['transfer-encoding'] ?? 'h2'}`));
};

for (const [front, back, backend] of [[1, 1, 'io_uring'], [2, 1, 'epoll'], [1, 2, 'epoll'], [2, 2, 'io_uring']]) {
  it(`HTTP/${front} in, HTTP/${back} out, ${backend}: a large body arrives whole, and waits at the client while the replica does not read`, async () => {
    let go;
    const start = new Promise((resolve) => (go = resolve));
    const r = await replica(async (req, res) => {
      await start;
      digest(req, res);
    }, back);
    const gw = await gateway([r.endpoint], { version: back, args: ['--loop-backend', backend] });
    const piece = crypto.randomBytes(MIB), hash = crypto.createHash('sha256'), total = 80; // more than any body that is held
    const { writable, answer } = upload(gw, front, { 'content-length': total * MIB });
    let taken = 0;
    const writing = (async () => {
      for (; taken < total; taken++) {
        hash.update(piece);
        if (!writable.write(piece)) await once(writable, 'drain');
      }
      writable.end();
    })();
    let before = -1;
    await eventually('that', () => { // it comes to a stop
      const same = taken === before;
      before = taken;
      return same && r.seen === 1;
    }, { everyMs: 150 });
    assert.ok(taken < 40, `${taken} MiB were taken of a client whose replica reads nothing`);
    go();
    await writing;
    const { status, text } = await answer;
    assert.equal(status, 200);
    assert.equal(text, `${total * MIB} ${hash.digest('hex')} ${total * MIB}`);
    await r.stop();
  });

  it(`HTTP/${front} in, HTTP/${back} out, ${backend}: each piece passes by itself, both ways at once`, async () => {
    const r = await replica((req, res) => {
      res.writeHead(200, { 'content-type': 'application/octet-stream' });
      res.flushHeaders?.();
      req.on('data', (d) => res.write(`<${d}>`));
      req.on('end', () => res.end('.'));
    }, back);
    const gw = await gateway([r.endpoint], { version: back, args: ['--loop-backend', backend] });
    const { writable, answer } = upload(gw, front);
    if (front === 2) {
      writable.write('a');
      for (const next of ['b', 'c', null]) {
        await once(writable, 'data');
        if (next) writable.write(next);
        else writable.end();
      }
    } else {
      writable.write('a');
      await once(writable, 'response');
      writable.write('b');
      writable.end('c');
    }
    const { status, text } = await answer;
    assert.equal(status, 200);
    assert.equal(text.replaceAll(/[<>]/g, ''), 'abc.');
    await r.stop();
  });
}

it('a raw client sees its echo before it sends more; the chunks end, and the connection with them', async () => {
  const r = await replica((req, res) => {
    res.writeHead(200);
    req.on('data', (d) => res.write(d));
    req.on('end', () => res.end());
  });
  const gw = await gateway([r.endpoint]);
  const s = net.connect(gw.port);
  let text = '';
  s.setEncoding('utf8').on('data', (d) => (text += d));
  s.write('POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
  for (const word of ['one', 'two', 'three']) {
    s.write(`${word.length.toString(16)}\r\n${word}\r\n`);
    await eventually('that', () => text.includes(word));
  }
  s.write('0\r\n\r\n');
  await once(s, 'end');
  assert.match(text, /^HTTP\/1\.1 200 [\s\S]*connection: close\r\n/i);
  assert.match(text, /\r\n0\r\n\r\n$/);
  await r.stop();
});

const CHUNKED = 'POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n';
async function raw(gw, head) {
  const s = net.connect(gw.port);
  s.text = '';
  s.setEncoding('utf8').on('data', (d) => (s.text += d)).on('error', () => {});
  s.write(`${head}\r\n`);
  return s;
}

it('100 Continue is said once a replica is there, and not where none is', async () => {
  const r = await replica(digest);
  const gw = await gateway([r.endpoint]);
  const s = await raw(gw, `${CHUNKED}Expect: 100-continue\r\n`);
  await eventually('that', () => s.text === 'HTTP/1.1 100 Continue\r\n\r\n');
  s.write('3\r\nabc\r\n0\r\n\r\n');
  await eventually('that', () => s.text.includes('3 ba7816bf'));
  // the body was complete before its answer began: the connection is kept
  s.write(`${CHUNKED}\r\n1\r\nz\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n`);
  await eventually('that', () => s.text.split('200 OK').length === 4);
  s.destroy();
  await r.stop();
  const none = await gateway([r.endpoint], { policies: { files: { waiting: { timeout: '50ms' } } } });
  const t = await raw(none, `${CHUNKED}Expect: 100-continue\r\n`);
  await once(t, 'end');
  assert.match(t.text, /^HTTP\/1\.1 503 /);
});

for (const front of [1, 2]) {
  it(`HTTP/${front}: an answer that comes before the body's end reaches the client, and no more is read`, async () => {
    const r = await replica((req, res) => {
      req.once('data', () => res.writeHead(413, { 'content-type': 'text/plain' }).end('too much for me'));
    });
    const gw = await gateway([r.endpoint]);
    const { writable, answer } = upload(gw, front, { 'content-length': 1024 * MIB });
    writable.on('error', () => {});
    writable.write(Buffer.alloc(MIB));
    const { status, text } = await answer;
    assert.equal(status, 413);
    assert.equal(text, 'too much for me');
    await r.stop();
  });

  it(`HTTP/${front}: another replica is asked before anything was sent, none afterwards`, async () => {
    const dead = await replica(digest);
    await dead.stop();
    const r = await replica(digest);
    const gw = await gateway([dead.endpoint, r.endpoint]);
    for (let i = 0; i < 4; i++) {
      const { writable, answer } = upload(gw, front);
      writable.end('x'.repeat(1000));
      assert.match((await answer).text, /^1000 /);
    }
    await r.stop();
    const rude = await replica((req) => req.once('data', () => req.socket.destroy()));
    const two = await gateway([rude.endpoint, rude.endpoint]);
    const { writable, answer } = upload(two, front);
    writable.on('error', () => {});
    writable.write('begun');
    assert.equal((await answer).status, 502);
    assert.equal(rude.seen, 1);
    await rude.stop();
  });

  it(`HTTP/${front}: a client that goes away in the middle ends the request at the replica`, async () => {
    const over = [];
    const r = await replica((req) => {
      req.on('close', () => over.push(req.complete));
      req.resume();
    });
    const gw = await gateway([r.endpoint]);
    const { writable } = upload(gw, front);
    writable.on('error', () => {});
    writable.write('some');
    await eventually('that', () => r.seen === 1);
    writable.destroy();
    await eventually('that', () => over.length === 1);
    assert.deepEqual(over, [false]);
    await r.stop();
  });
}

it('a body that is malformed, shorter or slower than it may be is refused, and looks whole to no replica', async () => {
  const over = [];
  const r = await replica((req, res) => {
    req.on('close', () => over.push(req.complete));
    digest(req, res);
  });
  const gw = await gateway([r.endpoint], { args: ['--client-timeout', '400ms'] });
  for (const body of ['3\r\nabc\r\nZ\r\n', '3;a\nabc\r\n0\r\n\r\n', '0x3\r\nabc\r\n0\r\n\r\n', '3 \r\nabc\r\n0\r\n\r\n']) {
    const s = await raw(gw, `${CHUNKED}\r\n${body}`); // with its head: the replica hears nothing of it
    await once(s, 'end');
    assert.match(s.text, /^HTTP\/1\.1 400 /, body);
  }
  assert.equal(r.seen, 0);
  const cases = [
    [CHUNKED, '3\r\nabc\r\nZ\r\n', /^HTTP\/1\.1 400 /],
    [CHUNKED, '3\r\nabcd\r\n', /^HTTP\/1\.1 400 /],
    [CHUNKED, '3\nabc\r\n', /^HTTP\/1\.1 400 /],
    [CHUNKED, 'ffffffffffffffff1\r\n', /^HTTP\/1\.1 400 /],
    [CHUNKED, '3\r\nabc\r\n', /^HTTP\/1\.1 408 /],
    ['PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n', 'abc', /^HTTP\/1\.1 408 /],
  ];
  for (const [head, body, wanted] of cases) {
    const s = await raw(gw, head);
    s.write(body);
    await once(s, 'end');
    assert.match(s.text, wanted, body);
  }
  await eventually('that', () => over.length === r.seen);
  assert.deepEqual([...new Set(over)], [false]);
  await r.stop();
});
