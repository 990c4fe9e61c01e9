// The gateway when replicas, clients and load are bad, by both ways in which its loops wait.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import net from 'node:net';
import OpenAI from 'openai';
import { eventually, Fleet } from './lib/atoll.mjs';
import { replica, staticGateway } from './lib/gateway.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const BACKENDS = ['epoll', 'io_uring'];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const ok = (res, text = '{"ok":true}') => res.writeHead(200, { 'Content-Type': 'application/json' }).end(text);

// A replica below HTTP: handle(socket) gets each connection once a whole request head has come.
async function rawReplica(handle) {
  const self = { connections: 0, sockets: new Set() };
  self.server = net.createServer((socket) => {
    let text = '';
    self.connections++;
    self.sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => self.sockets.delete(socket));
    socket.on('data', (d) => {
      text += d;
      if (text.includes('\r\n\r\n')) {
        const head = text;
        text = '';
        handle(socket, head);
      }
    });
  });
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

// A raw connection to the gateway.
async function rawClient(url, { write } = {}) {
  const { hostname, port } = new URL(url);
  const socket = net.connect({ host: hostname, port: Number(port) });
  socket.on('error', () => {});
  await once(socket, 'connect');
  if (write) socket.write(write);
  return socket;
}

const closed = (socket) => (socket.closed ? Promise.resolve() : once(socket, 'close'));

it('a token has a class, and its requests ask for none above it', async () => {
  const held = [];
  const back = await replica((req, res) => held.push(res));
  const tokens = await fleet.file('tokens', 'plain\nbatch nightly runs priority=low\nvip priority=CRITICAL\n');
  const gateway = await staticGateway(fleet, { m: [back.endpoint] }, { args: ['--auth-token-file', tokens], policies: { m: { limits: { requests: 1 }, waiting: { timeout: '9s' } } } });
  gateway.token = 'plain';
  const all = [gateway.infer('m')];
  await eventually('it is there', () => held.length === 1);
  const cases = [['plain', '', 'normal'], ['plain', 'high', 'high'], ['batch', '', 'low'], ['batch', 'critical', 'low'], ['vip', '', 'critical'], ['vip', 'low', 'low']];
  const want = {};
  for (const [token, asked, is] of cases) {
    want[is] = (want[is] ?? 0) + 1;
    all.push(gateway.infer('m', { headers: { Authorization: `Bearer ${token}`, ...(asked ? { 'X-Atoll-Priority': asked } : {}) } }));
    await eventually(`${token} ${asked} waits as ${is}`, async () => (await gateway.metric('atoll_gateway_queue_requests', { model: 'm', priority: is })) === want[is]);
  }
  for (let i = 0; i < all.length; i++) {
    await eventually('the next is there', () => held.length === 1);
    ok(held.pop());
  }
  assert.deepEqual([...new Set((await Promise.all(all)).map((a) => a.status))], [200]);
  await back.stop();
});

for (const backend of BACKENDS) {
  it(`those who wait go by priority, then in order; the lowest is shed first (${backend})`, async () => {
    const held = [];
    const back = await replica((req, res, body) => held.push({ res, name: JSON.parse(body).name }));
    const gateway = await staticGateway(fleet, { m: [back.endpoint], none: [] }, { backend, policies: { m: { limits: { requests: 1 }, waiting: { requests: 5, timeout: '10s' } }, none: { waiting: { timeout: '150ms' } } } });
    const waiting = (n) => eventually(`${n} wait`, async () => (await gateway.metric('atoll_gateway_queue_requests', { model: 'm' })) === n);
    const ask = (name, priority) => gateway.infer('m', { body: JSON.stringify({ name }), headers: priority ? { 'X-Atoll-Priority': priority } : {} });
    const answers = { first: ask('first') };
    await eventually('the first is there', () => held.length === 1);
    let n = 0;
    for (const [name, priority] of [['low1', 'low'], ['low2', 'low'], ['normal', ''], ['high1', 'HIGH'], ['high2', 'high']]) {
      answers[name] = ask(name, priority);
      await waiting(++n);
    }
    answers.critical = ask('critical', 'critical'); // the queue is full: the newest of the lowest goes
    const shed = await answers.low2;
    assert.equal(shed.status, 429);
    assert.equal(shed.headers['retry-after'], '1');
    const refused = await ask('another', 'low'); // nobody is worth less
    assert.equal(refused.status, 429);
    await waiting(5);
    assert.equal((await ask('x', 'urgent')).status, 400);
    const order = [];
    for (let i = 0; i < 6; i++) {
      await eventually('the next is there', () => held.length === 1);
      const { res, name } = held.pop();
      order.push(name);
      ok(res);
    }
    assert.deepEqual(order, ['first', 'critical', 'high1', 'high2', 'normal', 'low1']);
    for (const [name, answer] of Object.entries(answers)) assert.equal((await answer).status, name === 'low2' ? 429 : 200, name);
    assert.equal(await gateway.metric('atoll_gateway_shed_total', { model: 'm', priority: 'low', reason: 'displaced' }), 1);
    const late = await gateway.infer('none');
    assert.equal(late.status, 503);
    assert.equal(late.headers['retry-after'], '1');
    const chat = await gateway.chat('none');
    assert.ok(Number(chat.headers['retry-after-ms']) > 0);
    assert.equal(JSON.parse(chat.body).error.type, 'server_error');
    await back.stop();
  });

  it(`bodies that wait are bounded in bytes (${backend})`, async () => {
    const held = [];
    const back = await replica((req, res) => held.push(res));
    const gateway = await staticGateway(fleet, { m: [back.endpoint] }, { backend, policies: { m: { limits: { requests: 1 }, waiting: { bytes: '100Ki', timeout: '5s' } } } });
    const first = gateway.infer('m');
    await eventually('it is there', () => held.length === 1);
    const body = JSON.stringify({ x: 'y'.repeat(60_000) });
    const second = gateway.infer('m', { body });
    await eventually('it waits', async () => (await gateway.metric('atoll_gateway_queue_bytes')) > 60_000);
    assert.equal((await gateway.infer('m', { body })).status, 429);
    ok(held.pop());
    await eventually('the next is there', () => held.length === 1);
    assert.equal(await gateway.metric('atoll_gateway_queue_bytes'), 0);
    ok(held.pop());
    assert.deepEqual([(await first).status, (await second).status], [200, 200]);
    await back.stop();
  });

  it(`a replica that hangs, breaks off, lies about length or answers garbage costs a retry, or an honest error (${backend})`, async () => {
    const good = await replica();
    const bad = {
      hangs: () => {},
      resets: (s) => s.resetAndDestroy(),
      cuts: (s) => s.end('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"half":'),
      garbage: (s) => s.end('\x00\x01 not http at all \xff\r\n\r\n'),
      smuggles: (s) => s.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc'),
      half: (s) => s.write('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"half":'),
    };
    const raws = {};
    for (const [name, handle] of Object.entries(bad)) raws[name] = await rawReplica(handle);
    const models = Object.fromEntries(Object.entries(raws).flatMap(([name, raw]) => [[name, [raw.endpoint]], [`${name}-and-good`, [raw.endpoint, good.endpoint]]]));
    const quiet = { health: { passive: { errors: 0 } } }; // each request meets the bad one
    const gateway = await staticGateway(fleet, models, { backend, args: ['--answer-timeout', '400ms'], policies: Object.fromEntries(Object.keys(models).map((m) => [m, quiet])) });
    for (const name of Object.keys(bad)) {
      const slow = name === 'hangs' || name === 'half';
      for (let i = 0; i < 2; i++) {
        const both = await gateway.infer(`${name}-and-good`);
        if (slow) assert.ok([200, 504].includes(both.status), `${name}: ${both.status}`);
        else assert.equal(both.status, 200, `${name}: ${both.body}`);
      }
      const alone = await gateway.infer(name);
      assert.equal(alone.status, slow ? 504 : 502, `${name}: ${alone.status} ${alone.body}`);
      assert.doesNotMatch(alone.body, /half"/);
      const chat = await gateway.chat(name);
      assert.equal(chat.status, slow ? 504 : 502, name);
      assert.equal(JSON.parse(chat.body).error.type, 'server_error');
    }
    assert.ok((await gateway.metric('atoll_gateway_retries_total')) > 0);
    for (const raw of Object.values(raws)) await raw.stop();
    await good.stop();
  });

  it(`a stream whose replica dies or hangs ends with an error event after whole events only (${backend})`, async () => {
    const head = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n';
    const chunk = (text) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
    const delta = (text) => `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta: { content: text }, finish_reason: null }] })}\n\n`;
    const begin = (s) => s.write(head + chunk(delta('one')) + chunk(`${delta('two')}data: {"hal`));
    const dies = await rawReplica((s) => {
      begin(s);
      setTimeout(() => s.resetAndDestroy(), 30);
    });
    const hangs = await rawReplica((s) => begin(s));
    const plain = await rawReplica((s) => {
      s.write(`HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n${chunk('half a')}`);
      setTimeout(() => s.destroy(), 30);
    });
    const gateway = await staticGateway(fleet, { dies: [dies.endpoint], hangs: [hangs.endpoint], plain: [plain.endpoint] }, { backend, args: ['--answer-timeout', '300ms'] });
    for (const model of ['dies', 'hangs']) {
      const a = await gateway.chat(model, { json: { stream: true } });
      assert.equal(a.status, 200);
      assert.equal(a.error, undefined);
      const events = a.body.split('\n\n').filter(Boolean);
      assert.equal(events.length, 3, a.body);
      assert.match(events[2], /^event: error\ndata: /);
      assert.equal(JSON.parse(events[2].split('data: ')[1]).error.code, 'replica_lost');
      const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'x', maxRetries: 0 });
      const got = [];
      await assert.rejects(async () => {
        for await (const part of await client.chat.completions.create({ model, messages: [], stream: true })) got.push(part.choices[0].delta.content);
      }, /replica/);
      assert.deepEqual(got, ['one', 'two']);
    }
    const cut = await gateway.chat('plain');
    assert.ok(cut.error, 'a cut answer must not look complete');
    for (const raw of [dies, hangs, plain]) await raw.stop();
  });

  it(`a replica that answers errors is ejected, for longer each time; never too many, never all (${backend})`, async () => {
    const sick = new Set();
    const backs = [];
    for (let i = 0; i < 4; i++) {
      backs.push(await replica((req, res) => (sick.has(i) ? res.writeHead(500, { 'Content-Type': 'application/json' }).end('{"error":"sick"}') : ok(res))));
    }
    const policies = { m: { health: { passive: { errors: 3, ejection: '200ms', maxEjection: '2s', maxEjectedPercent: 50 } } }, lone: { health: { passive: { errors: 1 } } } };
    const gateway = await staticGateway(fleet, { m: backs.map((b) => b.endpoint), lone: [backs[0].endpoint] }, { backend, policies });
    const round = async (n) => {
      const statuses = [];
      for (let i = 0; i < n; i++) statuses.push((await gateway.infer('m')).status);
      return statuses;
    };
    const open = () => gateway.metric('atoll_gateway_replica_circuits', { model: 'm' });
    sick.add(0);
    await round(24);
    assert.equal(await open(), 1);
    const before = backs[0].seen.length;
    assert.deepEqual(new Set(await round(8)), new Set([200]));
    assert.equal(backs[0].seen.length, before);
    sick.delete(0);
    await eventually('it is found back', async () => (await round(4)) && (await open()) === 0);
    for (let i = 0; i < 4; i++) sick.add(i);
    await round(60);
    assert.ok((await open()) <= 2, 'half of them at most');
    for (let i = 0; i < 5; i++) assert.equal((await gateway.infer('lone')).status, 500); // the only one is asked on
    assert.equal(await gateway.metric('atoll_gateway_replica_circuits', { model: 'lone' }), 0);
    assert.ok((await gateway.metric('atoll_gateway_ejections_total', { model: 'm', reason: 'errors' })) >= 2);
    for (const b of backs) await b.stop();
  });

  it(`a replica that fails the gateway's own checks is left alone until it passes (${backend})`, async () => {
    const well = [true, true];
    const backs = [];
    for (let i = 0; i < 2; i++) backs.push(await replica((req, res) => (req.url === '/well' ? res.writeHead(well[i] ? 200 : 503).end() : ok(res, String(i)))));
    const policies = { m: { health: { active: { protocol: 'http', path: '/well', interval: '100ms', failures: 2 } } } };
    const gateway = await staticGateway(fleet, { m: backs.map((b) => b.endpoint) }, { backend, policies });
    const sick = () => gateway.metric('atoll_gateway_unhealthy_replicas', { model: 'm' });
    const who = async () => new Set(await Promise.all(Array.from({ length: 40 }, async () => (await gateway.infer('m')).body)));
    await eventually('both are asked', async () => (await gateway.metric('atoll_gateway_health_checks_total', { result: 'passed' })) >= 2);
    assert.deepEqual([...(await who())].sort(), ['0', '1']);
    well[0] = false;
    await eventually('one is known to be sick', async () => (await sick()) === 1);
    assert.deepEqual([...(await who())], ['1']);
    well[1] = false;
    await eventually('both are', async () => (await sick()) === 2);
    assert.equal((await gateway.infer('m')).status, 200, 'somebody is asked all the same');
    well.fill(true);
    await eventually('both are back', async () => (await sick()) === 0);
    assert.deepEqual([...(await who())].sort(), ['0', '1']);
    for (const b of backs) await b.stop();
  });

  it(`a slow request is sent to a second replica when asked; the first answer counts, the other is cancelled (${backend})`, async () => {
    const held = [];
    const slow = await replica((req, res, body) => (body.includes('"warm"') ? ok(res, 'slow') : held.push(res)));
    const fast = await replica((req, res) => ok(res, 'fast'));
    const models = { m: [slow.endpoint, fast.endpoint], always: [slow.endpoint, fast.endpoint], none: [slow.endpoint, slow.endpoint] };
    const gateway = await staticGateway(fleet, models, { backend, policies: { always: { hedging: { after: 'p95', maxPercent: 100 } }, none: {} } });
    const hedges = (result, model = 'm') => gateway.metric('atoll_gateway_hedges_total', { model, result });
    let n = 0;
    while ((await hedges('won')) < 2 && n++ < 30) assert.equal((await gateway.infer('m', { headers: { 'X-Atoll-Hedge': '40ms' } })).body, 'fast');
    assert.equal(await hedges('won'), 2);
    await eventually('the slow ones were cancelled', () => slow.open === 0);
    assert.equal((await gateway.infer('m', { headers: { 'X-Atoll-Hedge': 'soon' } })).status, 400);
    assert.equal(slow.seen.length + fast.seen.length - n, await hedges('sent')); // nothing else was doubled
    for (let i = 0; i < 30; i++) await gateway.infer('always', { body: '{"warm":1}' });
    n = 0;
    while ((await hedges('won', 'always')) < 1 && n++ < 30) assert.equal((await gateway.infer('always')).body, 'fast');
    assert.equal(await hedges('won', 'always'), 1);
    const before = await hedges('sent', 'always');
    const chats = Promise.all([gateway.chat('always'), gateway.chat('always')]);
    await eventually('a chat is with the slow one', () => held.length > 0 && slow.open > 0);
    await sleep(100);
    assert.equal(await hedges('sent', 'always'), before, 'what is sampled is never doubled');
    held.forEach((res) => res.writableEnded || ok(res));
    await chats;
    await slow.stop();
    await fast.stop();
  });

  it(`when nothing helps the model's circuit opens, lets one try, and closes (${backend})`, async () => {
    const back = await rawReplica((s, head) => (self.well ? s.end(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`) : s.resetAndDestroy()));
    const self = { well: false };
    const gateway = await staticGateway(fleet, { m: [back.endpoint] }, { backend, policies: { m: { limits: { circuitErrors: 4, circuitOpen: '300ms' }, retries: { attempts: 1 } } } });
    for (let i = 0; i < 4; i++) assert.equal((await gateway.chat('m')).status, 502);
    const seen = back.connections;
    const fast = await gateway.chat('m');
    assert.equal(fast.status, 503);
    assert.equal(back.connections, seen, 'an open circuit asks nobody');
    assert.equal(await gateway.metric('atoll_gateway_model_circuits', { model: 'm', state: 'open' }), 1);
    self.well = true;
    await eventually('it closes', async () => (await gateway.chat('m')).status === 200);
    assert.equal(await gateway.metric('atoll_gateway_model_circuits', { model: 'm' }), 0);
    await back.stop();
  });

  it(`slow, silent, huge and endless clients are cut off and others are served (${backend})`, async () => {
    const stream = await rawReplica((s) => {
      s.write('HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n');
      const block = `10000\r\n${'x'.repeat(65536)}\r\n`;
      const go = () => {
        while (!s.destroyed && s.write(block));
      };
      s.on('drain', go);
      go();
    });
    const good = await replica();
    const gateway = await staticGateway(fleet, { m: [good.endpoint], endless: [stream.endpoint] }, { backend, args: ['--client-timeout', '700ms', '--answer-timeout', '700ms'] });
    const loris = [];
    for (let i = 0; i < 50; i++) loris.push(await rawClient(gateway.url, { write: 'POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nX-A: ' }));
    const drip = setInterval(() => loris.forEach((s) => s.write('a')), 50);
    const slowBody = await rawClient(gateway.url, { write: 'POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{' });
    const huge = await rawClient(gateway.url, { write: 'POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n' });
    const [answer] = await once(huge, 'data');
    assert.match(String(answer), /^HTTP\/1\.1 413 /);
    const deaf = await rawClient(gateway.url, { write: 'GET /v2/models/endless HTTP/1.1\r\nHost: x\r\n\r\n' });
    deaf.pause(); // it never reads
    for (let i = 0; i < 20; i++) assert.equal((await gateway.infer('m')).status, 200);
    await Promise.all([...loris, slowBody].map((s) => (s.resume(), closed(s))));
    clearInterval(drip);
    await eventually('the replica of the client that does not read is let go', () => stream.sockets.size === 0);
    const endless = await rawClient(gateway.url, { write: 'POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n' });
    let told = '';
    endless.on('data', (d) => (told += d));
    const block = Buffer.from(`100000\r\n${'y'.repeat(1 << 20)}\r\n`);
    for (let sent = 0; sent < 200 && !endless.destroyed && !told; sent++) if (!endless.write(block)) await Promise.race([once(endless, 'drain'), closed(endless), sleep(100)]);
    await eventually('it is refused', () => told.startsWith('HTTP/1.1 413') || endless.destroyed);
    assert.equal((await gateway.infer('m')).status, 200);
    for (const s of [huge, deaf, endless]) s.destroy();
    await stream.stop();
    await good.stop();
  });

  it(`10,000 connections opened and dropped leave nothing behind (${backend})`, async () => {
    const back = await replica();
    const gateway = await staticGateway(fleet, { m: [back.endpoint] }, { backend });
    const descriptors = () => readdirSync(`/proc/${gateway.proc.child.pid}/fd`).length;
    await gateway.infer('m');
    const before = descriptors();
    const { hostname, port } = new URL(gateway.url);
    for (let round = 0; round < 20; round++) {
      const sockets = await Promise.all(Array.from({ length: 500 }, () => new Promise((resolve) => {
        const s = net.connect({ host: hostname, port: Number(port) }, () => resolve(s));
        s.on('error', () => resolve(s));
      })));
      sockets.forEach((s, i) => {
        if (i % 3 === 0) s.write('POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{');
        if (i % 3 === 1) s.write('GET /v2/models/m HTTP/1.1\r\nHost: x\r\n\r\n');
        (i % 2 ? () => s.destroy() : () => s.resetAndDestroy())();
      });
    }
    await eventually('it serves', async () => (await gateway.infer('m')).status === 200);
    await eventually('no descriptor is left', () => descriptors() <= before + 4);
    await eventually('nothing is under way', async () => (await gateway.metric('atoll_gateway_outstanding_requests')) === 0);
    await back.stop();
  });

  it(`SIGTERM under load fails no request: what runs and what waits is finished (${backend})`, async () => {
    const back = await replica((req, res) => setTimeout(() => ok(res), 30));
    const gateway = await staticGateway(fleet, { m: [back.endpoint] }, { backend, policies: { m: { limits: { requests: 4 }, waiting: { timeout: '10s' } } } });
    const all = Array.from({ length: 60 }, () => gateway.chat('m', { agent: false }));
    await eventually('they wait', async () => back.seen.length >= 8);
    const end = gateway.proc.stop();
    const answers = await Promise.all(all);
    assert.deepEqual([...new Set(answers.map((a) => a.status ?? a.error))], [200]);
    assert.equal((await end).code, 0);
    await back.stop();
  });
}
