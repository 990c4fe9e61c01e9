// Plain HTTP services of the gateway: requests by host and path, WebSockets, server-sent events.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import { WebSocket, WebSocketServer } from 'ws';
import { eventually, Fleet, run } from './lib/atoll.mjs';
import { Cluster, web, webRoot } from './lib/cluster.mjs';
import { call } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);

// A replica that says what it was asked; answer(req, res) may answer instead and return true.
async function replica(name, answer = () => false) {
  const self = { name, seen: [], sockets: new Set() };
  self.server = http.createServer((req, res) => {
    self.seen.push({ method: req.method, url: req.url, headers: req.headers });
    if (!answer(req, res)) res.end(`${name} ${req.url}`);
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

// replicas: {model: [replica]}
async function gateway(replicas, services, ...args) {
  const models = Object.fromEntries(Object.entries(replicas).map(([m, list]) => [m, list.map((r, i) => ({ endpoint: r.endpoint, instance: `${m}-${i}` }))]));
  const routes = await fleet.file('routes.json', JSON.stringify({ models, services }));
  const proc = fleet.start('atoll gateway', ['gateway', '--listen', '127.0.0.1:0', '--static-routes', routes, '--threads', '1', ...args]);
  const [, url] = await proc.line(/^ready gateway (https?:\/\/\S+)$/m);
  const { port } = new URL(url);
  const ask = (path, { host = 'x', method = 'GET', headers = {} } = {}) =>
    new Promise((resolve, reject) => {
      const req = http.request({ port, method, path, headers: { Host: host, ...headers } }, async (res) => {
        let text = '';
        for await (const c of res) text += c;
        resolve({ status: res.statusCode, text, headers: res.headers });
      });
      req.on('error', reject).end();
    });
  const metric = async (line) => Number((await (await fetch(`${url}/metrics`)).text()).split('\n').find((l) => l.startsWith(`${line} `))?.slice(line.length + 1) ?? NaN);
  return { proc, url, port: Number(port), ask, metric };
}

it('host and path choose the service: exact host, wildcard, any; the longest path by whole segments; rewrites', async () => {
  const names = ['shop', 'api', 'wild', 'deep', 'rest', 'old'];
  const replicas = Object.fromEntries(await Promise.all(names.map(async (n) => [n, [await replica(n)]])));
  const gw = await gateway(replicas, [
    { model: 'shop', hosts: ['shop.example.org'] },
    { model: 'api', hosts: ['Shop.Example.org'], path: '/api/', rewrite: '/' },
    { model: 'wild', hosts: ['*.example.org'] },
    { model: 'deep', hosts: ['*.eu.example.org'], path: '/' },
    { model: 'rest', path: '/static', rewrite: '/files/v1' },
    { model: 'old', hosts: ['shop.example.org'], path: '/' }, // the older one stays
  ]);
  const cases = [
    ['shop.example.org', '/', 'shop /'],
    ['SHOP.example.org.:8443', '/a?b=c', 'shop /a?b=c'],
    ['shop.example.org', '/api', 'api /'],
    ['shop.example.org', '/api?x=1', 'api /?x=1'],
    ['shop.example.org', '/api/', 'api /'],
    ['shop.example.org', '/api/v1/x%2Fy?q', 'api /v1/x%2Fy?q'],
    ['shop.example.org', '/%61pi/z', 'api /z'], // the same path in other letters
    ['shop.example.org', '/apiary', 'shop /apiary'],
    ['shop.example.org', '/api%2Fx', 'shop /api%2Fx'], // one segment
    ['shop.example.org', '/API', 'shop /API'],
    ['shop.example.org', '/metrics', 'shop /metrics'], // a host that is named is the service's alone
    ['shop.example.org', '/v1/models', 'shop /v1/models'],
    ['a.example.org', '/', 'wild /'],
    ['a.b.example.org', '/', 'wild /'],
    ['a.eu.example.org', '/', 'deep /'],
    ['elsewhere', '/static/logo.png', 'rest /files/v1/logo.png'],
    ['elsewhere', '/static', 'rest /files/v1'],
    ['127.0.0.1:7080', '/static//x/', 'rest /files/v1//x/'],
  ];
  for (const [host, path, want] of cases) assert.deepEqual({ host, path, ...(await gw.ask(path, { host })), headers: 0 }, { host, path, status: 200, text: want, headers: 0 });
  assert.equal((await gw.ask('/', { host: 'example.org' })).status, 404); // a wildcard is what is below
  assert.equal((await gw.ask('/', { host: 'elsewhere' })).status, 404);
  assert.equal((await gw.ask('/statics', { host: 'elsewhere' })).status, 404);
  assert.equal((await gw.ask('/healthz', { host: 'elsewhere' })).text, 'ok\n');
  for (const path of ['/api/../admin', '/api/%2e%2e/admin', '/api/.%2E', '/./x', '/a/..', '/x%2f..%2fy', '/x%00', '/a%5c..%5cb']) {
    assert.equal((await gw.ask(path, { host: 'shop.example.org' })).status, 400, path);
  }
  for (const n of names) for (const s of replicas[n][0].seen) assert.doesNotMatch(s.url, /\.\.|%2e%2e/i);
  assert.equal(replicas.old[0].seen.length, 0);
});

it('a service sees its client: host, forwarded lines, all methods; tokens guard it, or not', async () => {
  const tokens = await fleet.file('tokens', 'secret\n');
  const [closed, open] = [await replica('closed'), await replica('open')];
  const gw = await gateway({ closed: [closed], open: [open] }, [{ model: 'closed', hosts: ['closed.example'] }, { model: 'open', hosts: ['open.example'], access: 'Public' }], '--auth-token-file', tokens);
  assert.equal((await gw.ask('/', { host: 'closed.example' })).status, 401);
  assert.equal(closed.seen.length, 0);
  const bearer = { Authorization: 'Bearer secret' };
  assert.equal((await gw.ask('/', { host: 'closed.example', headers: bearer })).status, 200);
  assert.equal(closed.seen[0].headers.authorization, undefined);
  const sent = { Authorization: 'Basic dTpw', 'X-Forwarded-For': '10.1.2.3', 'X-Forwarded-Proto': 'https', 'X-Real-IP': '10.9.9.9', Forwarded: 'for=10.9.9.9', Cookie: 'a=b' };
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) assert.equal((await gw.ask('/x', { host: 'open.example:81', method, headers: sent })).status, 200, method);
  const { headers } = open.seen[0];
  assert.deepEqual(open.seen.map((s) => s.method).join(), 'GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS');
  assert.equal(headers.host, 'open.example:81');
  assert.equal(headers.authorization, 'Basic dTpw');
  assert.equal(headers['x-forwarded-for'], '10.1.2.3, 127.0.0.1');
  assert.equal(headers['x-forwarded-proto'], 'http'); // what we saw, not what it says
  assert.equal(headers['x-forwarded-host'], 'open.example:81');
  assert.equal(headers.cookie, 'a=b');
  assert.equal(headers['x-real-ip'], undefined);
  assert.equal(headers.forwarded, undefined);
  assert.match(headers.traceparent, /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
});

async function sockets(name, options = {}) {
  const r = await replica(name);
  r.wss = new WebSocketServer({ server: r.server, ...options });
  r.wss.on('connection', (ws, req) => {
    r.last = { ws, req };
    ws.on('message', (data, binary) => ws.send(data, { binary }));
  });
  return r;
}

it('a WebSocket goes through: text, large binary, subprotocol, compression, ping, close code both ways', async () => {
  const r = await sockets('echo', { perMessageDeflate: true, handleProtocols: () => 'chat' });
  for (const backend of ['epoll', 'auto']) {
    const gw = await gateway({ echo: [r] }, [{ model: 'echo', path: '/ws', rewrite: '/socket' }], '--loop-backend', backend);
    const ws = new WebSocket(`ws://127.0.0.1:${gw.port}/ws/room?x=1`, ['chat', 'other'], { headers: { Cookie: 'k=v' } });
    await once(ws, 'open');
    assert.equal(ws.protocol, 'chat');
    assert.ok(ws.extensions.includes('permessage-deflate'));
    assert.equal(r.last.req.url, '/socket/room?x=1');
    assert.equal(r.last.req.headers.cookie, 'k=v');
    assert.equal(r.last.req.headers['x-forwarded-for'], '127.0.0.1');
    ws.send('hello');
    assert.equal((await once(ws, 'message'))[0].toString(), 'hello');
    const big = Buffer.alloc(3_000_000, 'ab\u00e9');
    ws.send(big);
    assert.ok((await once(ws, 'message'))[0].equals(big));
    ws.ping('p');
    assert.equal((await once(ws, 'pong'))[0].toString(), 'p');
    assert.equal(await gw.metric('atoll_gateway_tunnels'), 1);
    assert.equal(await gw.metric('atoll_gateway_requests_total{model="echo",site="",code="101"}'), 1);
    r.last.ws.close(4001, 'bye');
    const [code, reason] = await once(ws, 'close');
    assert.deepEqual([code, reason.toString()], [4001, 'bye']);
    const other = new WebSocket(`ws://127.0.0.1:${gw.port}/ws`, ['chat']);
    await once(other, 'open');
    const closed = once(r.last.ws, 'close');
    other.close(4002);
    assert.equal((await closed)[0], 4002);
    await eventually('no tunnel is left', async () => (await gw.metric('atoll_gateway_tunnels')) === 0 && (await gw.metric('atoll_gateway_outstanding_requests')) === 0);
  }
});

it('a WebSocket that the replica refuses, that finds nobody, or that is no WebSocket', async () => {
  const r = await replica('no', (req, res) => req.headers.upgrade && (res.writeHead(403, { 'Content-Type': 'text/plain', 'X-Why': 'me' }).end('not you'), true));
  r.server.on('upgrade', (req, socket) => socket.end('HTTP/1.1 403 Forbidden\r\nX-Why: me\r\nContent-Length: 7\r\n\r\nnot you'));
  const liar = await replica('liar');
  liar.server.on('upgrade', (req, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nPRI'));
  const gw = await gateway({ no: [r], none: [], liar: [liar], dead: [{ endpoint: '127.0.0.1:1' }, r] }, ['no', 'none', 'liar', 'dead'].map((m) => ({ model: m, path: `/${m}` })));
  const refused = async (path) => {
    const ws = new WebSocket(`ws://127.0.0.1:${gw.port}${path}`);
    ws.on('error', () => {});
    const [, res] = await once(ws, 'unexpected-response');
    let text = '';
    for await (const c of res) text += c;
    return { status: res.statusCode, text, why: res.headers['x-why'] };
  };
  assert.deepEqual(await refused('/no'), { status: 403, text: 'not you', why: 'me' });
  assert.deepEqual(await refused('/dead'), { status: 403, text: 'not you', why: 'me' }); // the other one was asked
  assert.equal((await refused('/none')).status, 503);
  assert.equal((await refused('/liar')).status, 502);
  assert.equal((await refused('/nobody')).status, 404);
  // Other protocols are not agreed to: h2c would let a client speak past the gateway.
  const plain = await gw.ask('/no/h2c', { headers: { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAARAAAAAAAIAAAAA' } });
  assert.equal(plain.status, 200);
  assert.equal(r.seen.at(-1).headers.upgrade, undefined);
  assert.equal(r.seen.at(-1).headers['http2-settings'], undefined);
});

const UPGRADE = (path) => `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`;

// A replica that agrees and hands the bare socket out.
async function bare() {
  const r = await replica('bare');
  r.server.on('connection', (s) => (s.allowHalfOpen = true));
  r.opened = new Promise((done) => r.server.on('upgrade', (req, socket, head) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n');
    done({ socket, head });
  }));
  return r;
}

it('one side of a tunnel may end while the other goes on; bytes sent before the agreement arrive', async () => {
  for (const backend of ['epoll', 'auto']) {
    const r = await bare();
    const gw = await gateway({ bare: [r] }, [{ model: 'bare', path: '/' }], '--loop-backend', backend);
    const client = net.connect({ port: gw.port, host: '127.0.0.1', allowHalfOpen: true });
    client.write(UPGRADE('/t') + 'early');
    const { socket, head } = await r.opened;
    let up = head.toString();
    socket.on('data', (d) => (up += d));
    await eventually('the early bytes', () => up === 'early');
    client.end(' last');
    await once(socket, 'end');
    assert.equal(up, 'early last');
    let down = '';
    client.on('data', (d) => (down += d));
    for (let i = 0; i < 3; i++) {
      socket.write(`after ${i};`);
      await eventually('it arrives', () => down.endsWith(`after ${i};`));
    }
    socket.end('done');
    await once(client, 'end');
    assert.match(down, /^HTTP\/1\.1 101 [\s\S]*\r\n\r\nafter 0;after 1;after 2;done$/);
    await eventually('nothing is left', async () => (await gw.metric('atoll_gateway_tunnels')) === 0);
  }
});

it('the same over TLS: WebSockets, and half close by close_notify', async () => {
  const dir = await fleet.dir('certs');
  const made = await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${dir}/key.pem`, '-out', `${dir}/cert.pem`, '-days', '2', '-subj', '/CN=localhost']);
  assert.equal(made.code, 0, made.err);
  for (const backend of ['epoll', 'auto']) {
    const [e, b] = [await sockets('echo'), await bare()];
    const gw = await gateway({ echo: [e], bare: [b] }, [{ model: 'echo', path: '/ws' }, { model: 'bare', path: '/bare' }], '--loop-backend', backend, '--tls-cert', `${dir}/cert.pem`, '--tls-key', `${dir}/key.pem`);
    const ws = new WebSocket(`wss://127.0.0.1:${gw.port}/ws`, { rejectUnauthorized: false });
    await once(ws, 'open');
    assert.equal(e.last.req.headers['x-forwarded-proto'], 'https');
    const big = Buffer.alloc(2_000_000, 'xyz');
    ws.send(big);
    assert.ok((await once(ws, 'message'))[0].equals(big));
    ws.close(4000);
    assert.equal((await once(ws, 'close'))[0], 4000);
    const client = tls.connect({ port: gw.port, host: '127.0.0.1', rejectUnauthorized: false, allowHalfOpen: true });
    client.write(`${UPGRADE('/bare')}up`);
    const { socket, head } = await b.opened;
    let up = head.toString();
    socket.on('data', (d) => (up += d));
    let down = '';
    client.on('data', (d) => (down += d));
    await eventually('it is open', () => down.includes('101'));
    socket.end('last word'); // the replica's side ends; the client's goes on
    await once(client, 'end');
    assert.ok(down.endsWith('last word'));
    client.write(' and on');
    await eventually('it still arrives', () => up === 'up and on');
    client.end();
    await once(socket, 'end');
  }
});

it('who does not read holds the other side back; who goes away takes the other side along; silence ends it', async () => {
  const r = await bare();
  const gw = await gateway({ bare: [r] }, [{ model: 'bare', path: '/' }], '--tunnel-idle', '2s');
  const client = net.connect({ port: gw.port, host: '127.0.0.1' });
  client.write(UPGRADE('/t'));
  const { socket } = await r.opened;
  await once(client, 'data');
  client.pause();
  socket.on('error', () => {});
  const told = new Promise((done) => socket.resume().on('end', done).on('close', done));
  const block = Buffer.alloc(1 << 20);
  const total = 64;
  let sent = 0;
  const pump = () => {
    while (sent < total && (sent++, socket.write(block)));
  };
  socket.on('drain', pump);
  pump();
  await eventually('it stops taking', async () => {
    const before = sent;
    await new Promise((done) => setTimeout(done, 100));
    return sent === before;
  });
  assert.ok(sent < total, `${sent} MB were taken although nobody reads`);
  let got = 0;
  client.on('data', (d) => (got += d.length)).resume();
  await eventually('all of it arrives', () => sent === total && got >= total << 20);
  const began = Date.now();
  await once(client, 'close'); // nobody says anything
  assert.ok(Date.now() - began < 20_000);
  await told;
  socket.destroy();
  const r2 = await bare();
  const gw2 = await gateway({ bare: [r2] }, [{ model: 'bare', path: '/' }]);
  const second = net.connect({ port: gw2.port, host: '127.0.0.1' });
  second.write(UPGRADE('/t'));
  const there = (await r2.opened).socket;
  there.on('error', () => {});
  await once(second, 'data');
  const left = new Promise((done) => there.resume().on('end', done).on('close', done));
  second.destroy();
  await left;
  there.destroy();
});

it('a gateway that stops lets WebSockets go on while it drains', async () => {
  const r = await sockets('echo');
  const gw = await gateway({ echo: [r] }, [{ model: 'echo', path: '/' }]);
  const ws = new WebSocket(`ws://127.0.0.1:${gw.port}/`);
  await once(ws, 'open');
  gw.proc.child.kill('SIGTERM');
  await assert.rejects(eventually('no new ones', () => fetch(gw.url).then(() => false), { timeoutMs: 500 }));
  ws.send('still there?');
  assert.equal((await once(ws, 'message'))[0].toString(), 'still there?');
  ws.close();
  await once(ws, 'close');
  assert.equal((await gw.proc.exited).code, 0);
});

it('server-sent events: the head comes before the first event, each event at once, over HTTP/1.1 and HTTP/2', async () => {
  let res;
  const r = await replica('events', (req, out) => {
    res = out;
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
    res.flushHeaders();
    return true;
  });
  const gw = await gateway({ events: [r] }, [{ model: 'events', path: '/events' }]);
  const answer = await fetch(`${gw.url}/events`); // resolves with the head
  assert.equal(answer.headers.get('content-type'), 'text/event-stream');
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (const event of ['data: one\n\n', ': comment\n\n', 'id: 7\ndata: two\n\n']) {
    res.write(event);
    assert.equal((await reader.read()).value, event);
  }
  const gone = once(res, 'close');
  await reader.cancel(); // the client goes: the replica learns it
  await gone;
  const session = http2.connect(gw.url);
  const stream = session.request({ ':path': '/events' });
  assert.equal((await once(stream, 'response'))[0]['content-type'], 'text/event-stream');
  for (const event of ['data: one\n\n', 'data: two\n\n']) {
    res.write(event);
    assert.equal((await once(stream, 'data'))[0].toString(), event);
  }
  res.end();
  await once(stream, 'end');
  session.close();
});

it('a Deployment with spec.service is served by host and path as soon as it is ready, and no longer when that goes', async () => {
  const c = await Cluster.start(fleet, { 'local-1': 'local' });
  const root = await webRoot(fleet, 'from the web server');
  const made = web('site', c, { replicas: 1, root });
  made.spec.service = { hosts: ['www.example.org', '*.pages.example.org'], path: '/site', rewrite: '/', access: 'Public' };
  const refused = await call(c.url, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', { ...made, spec: { ...made.spec, service: { hosts: ['no host'], path: 'x' } } });
  assert.equal(refused.status, 422);
  assert.match(refused.body.message, /spec\.service\.hosts/);
  await c.server.apply([made]);
  const token = await call(c.admin, 'POST', '/join/v1/tokens', { role: 'gateway', site: 'local', ttl: '1h' });
  const proc = fleet.start('atoll gateway', ['gateway', '--server', c.server.url, '--token', token.body.token, '--ca-pin', token.body.caPin, '--name', 'gw-1', '--state', await fleet.dir('gw'), '--listen', '127.0.0.1:0']);
  const [, url] = await proc.line(/^ready gateway (https?:\/\/\S+)$/m);
  const { port } = new URL(url);
  const ask = (host, path) => new Promise((resolve, reject) => http.get({ port, path, headers: { Host: host } }, async (res) => {
    let text = '';
    for await (const part of res) text += part;
    resolve({ status: res.statusCode, text });
  }).on('error', reject));
  await eventually('it is served', async () => (await ask('www.example.org', '/site/')).text.includes('from the web server'));
  assert.equal((await ask('a.pages.example.org', '/site')).status, 200);
  assert.equal((await ask('www.example.org', '/')).status, 404);
  await c.patch('deployments', 'site', { spec: { service: { path: '/new' } } });
  await eventually('it has moved, without new copies', async () => (await ask('www.example.org', '/new/')).status === 200 && (await ask('www.example.org', '/site/')).status === 404);
  assert.equal((await c.instances('site')).length, 1);
  await c.patch('deployments', 'site', { spec: { service: null } });
  await eventually('it is no service any more', async () => (await ask('www.example.org', '/new/')).status === 404);
});
