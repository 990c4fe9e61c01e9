// What the gateway tells of requests: metrics, spans by OTLP/HTTP, the access log.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { createRequire } from 'node:module';
import { readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import OpenAI from 'openai';
import { ATOLL, eventually, Fleet, ROOT, run } from './lib/atoll.mjs';

// The decoder of OpenTelemetry's own package for Node: what it reads, collectors read.
const { opentelemetry } = createRequire(import.meta.url)(path.join(ROOT, 'tests/node_modules/@opentelemetry/otlp-transformer/build/src/generated/root.js'));
const Request = opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest;
const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const TRACE = '0af7651916cd43dd8448eb211c80319c';
const hex = (bytes) => Buffer.from(bytes ?? []).toString('hex');
const USAGE = { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 };

async function serve(handler) {
  const server = http.createServer(async (req, res) => {
    const chunks = [];
    for await (const c of req) chunks.push(c);
    handler(req, res, Buffer.concat(chunks));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.unref();
  return { server, endpoint: `127.0.0.1:${server.address().port}`, stop: () => new Promise((done) => (server.closeAllConnections(), server.close(done))) };
}

async function replica({ fail = false } = {}) {
  const r = { seen: [] };
  Object.assign(r, await serve((req, res, body) => {
    r.seen.push(req.headers);
    if (fail) return res.writeHead(503).end('{}');
    const { stream } = body.length ? JSON.parse(body) : {};
    if (!stream) return res.writeHead(200, { 'Content-Type': 'application/json', 'x-atoll-batch-size': '6' }).end(JSON.stringify({ id: 'c', object: 'chat.completion', choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'say "usage":{"prompt_tokens":99}' } }], usage: USAGE }));
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    const chunk = (delta, more = {}) => `data: ${JSON.stringify({ id: 'c', choices: [{ index: 0, delta, finish_reason: null }], usage: null, ...more })}\n\n`;
    const pieces = [': keepalive\n\n', chunk({ role: 'assistant', content: 'a' }), chunk({ content: 'b' }), chunk({ content: 'c' }), chunk({}, { choices: [], usage: USAGE }), 'data: [DONE]\n\n'];
    const next = () => (pieces.length ? (res.write(pieces.shift()), setTimeout(next, 15)) : res.end());
    next();
  }));
  return r;
}

// A collector that keeps what it is sent, and refuses the first few with a status.
async function collector({ refuse = [], hold } = {}) {
  const c = { spans: [], requests: 0, headers: null, resources: new Set() };
  Object.assign(c, await serve(async (req, res, body) => {
    c.requests++;
    c.headers = req.headers;
    c.url = req.url;
    if (hold) await hold;
    if (refuse.length) return res.writeHead(refuse.shift()).end();
    const got = Request.decode(body);
    for (const r of got.resourceSpans) {
      c.resources.add(JSON.stringify(Object.fromEntries(r.resource.attributes.map((a) => [a.key, a.value.stringValue]))));
      for (const s of r.scopeSpans) {
        for (const span of s.spans) {
          const attributes = Object.fromEntries(span.attributes.map((a) => [a.key, a.value.stringValue ?? Number(a.value.intValue)]));
          c.spans.push({ scope: s.scope.name, name: span.name, kind: span.kind, trace: hex(span.traceId), id: hex(span.spanId), parent: hex(span.parentSpanId), start: BigInt(span.startTimeUnixNano), end: BigInt(span.endTimeUnixNano), error: span.status?.code === 2, ...attributes });
        }
      }
    }
    res.writeHead(200, { 'Content-Type': 'application/x-protobuf' }).end();
  }));
  return c;
}

async function gateway(models, ...args) {
  const routes = await fleet.file('routes.json', JSON.stringify({ models: Object.fromEntries(Object.entries(models).map(([m, list]) => [m, list.map((r, i) => ({ endpoint: r.endpoint, instance: `${m}-${i}`, site: `s${i}` }))])) }));
  const proc = fleet.start('atoll gateway', ['gateway', '--listen', '127.0.0.1:0', '--static-routes', routes, ...(args.includes('--threads') ? [] : ['--threads', '2']), ...args]);
  const [, url] = await proc.line(/^ready gateway (http:\/\/\S+)$/m);
  const metrics = async () => (await fetch(`${url}/metrics`)).text();
  const metric = async (line) => Number((await metrics()).split('\n').find((l) => l.startsWith(`${line} `))?.slice(line.length + 1) ?? NaN);
  return { proc, url, metrics, metric };
}

const infer = (gw, headers = {}, model = 'm') => fetch(`${gw.url}/v2/models/${model}/infer`, { method: 'POST', body: '{"inputs":[]}', headers });

it('spans: server and attempt, with the client\'s trace, names, times and outcome; a retry is an attempt of its own', async () => {
  const c = await collector();
  const [bad, good] = [await replica({ fail: true }), await replica()];
  const gw = await gateway({ m: [good], two: [bad, good] }, '--otlp-endpoint', `http://${c.endpoint}/`, '--otlp-headers-file', await fleet.file('headers', '# for the collector\nAuthorization: Bearer sesame\r\nX-Tenant: t1\n'));
  const before = BigInt(Date.now()) * 1_000_000n;
  const answer = await infer(gw, { traceparent: `00-${TRACE}-b7ad6b7169203331-01`, tracestate: 'a=1,b=2', 'x-request-id': 'mine-1' });
  assert.equal(answer.status, 200);
  const [server, attempt] = await eventually('both spans', () => {
    const mine = c.spans.filter((s) => s.trace === TRACE);
    return mine.length === 2 && [mine.find((s) => s.kind === 2), mine.find((s) => s.kind === 3)];
  });
  assert.equal(c.url, '/v1/traces');
  assert.equal(c.headers['content-type'], 'application/x-protobuf');
  assert.equal(c.headers.authorization, 'Bearer sesame');
  assert.equal(c.headers['x-tenant'], 't1');
  assert.equal(server.parent, 'b7ad6b7169203331');
  assert.equal(attempt.parent, server.id);
  assert.equal(good.seen.at(-1).traceparent, `00-${TRACE}-${attempt.id}-01`);
  assert.equal(good.seen.at(-1).tracestate, 'a=1,b=2');
  assert.deepEqual([server.name, server['http.request.method'], server['http.response.status_code'], server['atoll.model'], server['atoll.instance'], server['atoll.site'], server['atoll.request_id'], server['atoll.attempts'], server.error], ['POST m', 'POST', 200, 'm', 'm-0', 's0', 'mine-1', 1, false]);
  assert.deepEqual([attempt['server.address'], attempt['http.response.status_code'], attempt.scope], [good.endpoint, 200, 'atoll.gateway']);
  for (const s of [server, attempt]) {
    assert.ok(s.start >= before - 50_000_000n && s.start <= s.end && s.end <= BigInt(Date.now() + 50) * 1_000_000n, `${s.start} ${s.end}`);
  }
  assert.match([...c.resources][0], /"service\.name":"atoll-gateway".*"host\.name":"/);

  assert.equal((await infer(gw, {}, 'two')).status, 200); // one of the two refuses, whichever is asked first
  for (let i = 0; i < 3; i++) await infer(gw, {}, 'two');
  const retried = await eventually('a request with two attempts', () => {
    const s = c.spans.find((x) => x.kind === 2 && x['atoll.attempts'] === 2);
    const of = s && c.spans.filter((x) => x.parent === s.id);
    return of?.length === 2 && { s, of };
  });
  assert.equal(retried.s.parent, '');
  assert.deepEqual(retried.of.map((a) => [a['atoll.attempt'], a['http.response.status_code'], a.error]).sort(), [[1, 503, true], [2, 200, false]]);
  assert.notEqual(retried.of[0].id, retried.of[1].id);
  await eventually('each attempt has its own span', () => bad.seen.concat(good.seen).every((h) => c.spans.some((s) => s.id === h.traceparent.split('-')[2])));
  await eventually('all are counted', async () => (await gw.metric('atoll_gateway_spans_total{result="exported"}')) === c.spans.length);
});

it('what is not sampled is not sent, by the client\'s flag or by ratio; the flag goes on', async () => {
  const c = await collector();
  const r = await replica();
  const gw = await gateway({ m: [r] }, '--otlp-endpoint', `http://${c.endpoint}/v1/traces`, '--trace-ratio', '0');
  await infer(gw);
  assert.match(r.seen.at(-1).traceparent, /-00$/);
  await infer(gw, { traceparent: `00-${TRACE}-b7ad6b7169203331-00` });
  assert.match(r.seen.at(-1).traceparent, new RegExp(`^00-${TRACE}-[0-9a-f]{16}-00$`));
  await infer(gw, { traceparent: `00-${TRACE}-b7ad6b7169203331-01` });
  await eventually('the sampled one', () => c.spans.length === 2);
  assert.ok(c.spans.every((s) => s.trace === TRACE));
  assert.equal(c.url, '/v1/traces');
});

it('a collector that refuses for a moment loses nothing; one that hangs or is gone holds no request up', async () => {
  const c = await collector({ refuse: [503, 429] });
  const r = await replica();
  const gw = await gateway({ m: [r] }, '--otlp-endpoint', `http://${c.endpoint}`);
  await infer(gw);
  await eventually('after two refusals', () => c.spans.length === 2);
  assert.equal(c.requests, 3);
  let release;
  const stuck = await collector({ hold: new Promise((done) => (release = done)) });
  const slow = await gateway({ m: [r] }, '--otlp-endpoint', `http://${stuck.endpoint}`, '--threads', '1');
  for (let i = 0; i < 15; i++) {
    const all = await Promise.all(Array.from({ length: 100 }, () => infer(slow)));
    assert.ok(all.every((a) => a.status === 200));
  }
  assert.ok((await slow.metric('atoll_gateway_spans_total{result="dropped"}')) > 0); // 3,000 do not fit
  release();
  const gone = await gateway({ m: [r] }, '--otlp-endpoint', 'http://127.0.0.1:1');
  assert.equal((await infer(gone)).status, 200);
});

it('what waits is sent before the gateway ends', async () => {
  const c = await collector();
  const gw = await gateway({ m: [await replica()] }, '--otlp-endpoint', `http://${c.endpoint}`);
  await infer(gw);
  assert.equal((await gw.proc.stop()).code, 0);
  assert.equal(c.spans.length, 2);
});

it('metrics by replica, site and key; time to the first token and between tokens; tokens; promtool has nothing to say', async () => {
  const tokens = await fleet.file('tokens', 'secret-a team-a\nsecret-b\nsecret-c "odd \\ name"\n');
  const r = await replica();
  const gw = await gateway({ chat: [r] }, '--auth-token-file', tokens);
  const client = (apiKey) => new OpenAI({ baseURL: `${gw.url}/v1`, apiKey, maxRetries: 0 });
  const ask = { model: 'chat', messages: [{ role: 'user', content: 'x' }] };
  await client('secret-a').chat.completions.create(ask);
  await client('secret-b').chat.completions.create(ask);
  await client('secret-c').chat.completions.create(ask);
  let n = 0;
  for await (const c of await client('secret-a').chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) n += c !== null;
  assert.equal(n, 4);
  await assert.rejects(client('wrong').chat.completions.create(ask));
  await infer(gw, { Authorization: 'Bearer secret-a' }, 'chat');
  const text = await eventually('all is counted', async () => {
    const t = await gw.metrics();
    return t.includes('atoll_gateway_replica_requests_total{model="chat",version="1",site="s0",replica="chat-0",code="200"} 5') && t;
  });
  for (const want of [
    'atoll_gateway_replica_request_duration_seconds_count{model="chat",version="1",site="s0",replica="chat-0"} 5',
    'atoll_gateway_key_requests_total{key="team-a",model="chat",code="200"} 3',
    'atoll_gateway_key_request_duration_seconds_count{key="team-a"} 3',
    'atoll_gateway_key_requests_total{key="\\"odd \\\\ name\\"",model="chat",code="200"} 1',
    'atoll_gateway_time_to_first_token_seconds_count{model="chat",version="1",site="s0"} 1',
    'atoll_gateway_inter_token_latency_seconds_count{model="chat",version="1",site="s0"} 3',
    'atoll_gateway_tokens_total{model="chat",key="team-a",kind="prompt"} 14',
    'atoll_gateway_tokens_total{model="chat",key="team-a",kind="completion"} 6',
    'atoll_gateway_replica_depth_requests_count{model="chat"} 5',
    'atoll_gateway_batch_rows_sum{model="chat"} 6',
  ]) assert.ok(text.includes(`${want}\n`), want);
  assert.match(text, /atoll_gateway_key_requests_total\{key="key-[0-9a-f]{8}",model="chat",code="200"\} 1/);
  assert.doesNotMatch(text, /secret-/);
  const checked = await run('promtool', ['check', 'metrics'], { input: text });
  assert.deepEqual([checked.code, checked.out + checked.err], [0, '']);
});

const lines = async (file) => (await readFile(file, 'utf8').catch(() => '')).split('\n').filter(Boolean).map((l) => JSON.parse(l));

it('the access log: a line of JSON for each request, also for those that go nowhere; renamed files are left alone', async () => {
  const dir = await fleet.dir('log');
  const file = `${dir}/access.log`;
  const tokens = await fleet.file('tokens', 'secret team\n');
  const gw = await gateway({ m: [await replica()] }, '--access-log', file, '--auth-token-file', tokens);
  const auth = { Authorization: 'Bearer secret' };
  await fetch(`${gw.url}/v2/models/m/infer?password=hidden`, { method: 'POST', body: '{"inputs":[]}', headers: { ...auth, 'user-agent': 'a "b" \\', 'x-request-id': 'mine-7', traceparent: `00-${TRACE}-b7ad6b7169203331-01` } });
  await infer(gw);
  await infer(gw, auth, 'unknown');
  const got = await eventually('three lines', async () => {
    const l = await lines(file);
    return l.length >= 3 && l;
  });
  const one = got.find((l) => l.status === 200);
  assert.match(one.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  assert.match(one.client, /^127\.0\.0\.1:\d+$/);
  assert.deepEqual([one.method, one.path, one.protocol, one.userAgent, one.model, one.instance, one.site, one.key, one.requestId, one.traceId, one.attempts, one.bytesIn], ['POST', '/v2/models/m/infer', 'HTTP/1.1', 'a "b" \\', 'm', 'm-0', 's0', 'team', 'mine-7', TRACE, 1, 13]);
  assert.ok(one.bytesOut > 100 && one.durationMs > 0, JSON.stringify(one));
  assert.deepEqual(got.map((l) => l.status).sort(), [200, 401, 404]);
  assert.doesNotMatch(await readFile(file, 'utf8'), /hidden|secret/);
  await rename(file, `${dir}/access.log.1`);
  await infer(gw, auth);
  gw.proc.child.kill('SIGHUP'); // as logrotate does: what waits is written now
  await eventually('a new file', async () => (await lines(file)).length === 1);
  assert.equal((await lines(`${dir}/access.log.1`)).length, 3);
  await infer(gw, auth);
  assert.equal((await gw.proc.stop()).code, 0);
  assert.equal((await lines(file)).length, 2); // what waited was written at the end
});

it('a failure that comes late is logged as what it is, whoever was answered meanwhile', async () => {
  const file = `${await fleet.dir('log')}/access.log`;
  let cut;
  const r = await serve((req, res) => (cut = () => req.socket.destroy()));
  const gw = await gateway({ m: [r] }, '--access-log', file, '--threads', '1');
  const lost = fetch(`${gw.url}/v1/chat/completions`, { method: 'POST', body: '{"model":"m","messages":[]}' });
  await eventually('the replica has it', () => cut);
  assert.equal((await fetch(`${gw.url}/healthz`, { headers: { Connection: 'close' } })).status, 200);
  cut();
  assert.equal((await lost).status, 502);
  await gw.proc.stop();
  assert.deepEqual((await lines(file)).map((l) => [l.status, l.path]), [[502, '/v1/chat/completions']]);
});

it('the access log is sampled by the class of the status; what cannot be set is said at start', async () => {
  const file = `${await fleet.dir('log')}/access.log`;
  const gw = await gateway({ m: [await replica()], none: [] }, '--access-log', file, '--access-log-rates', '2xx=0.1,5xx=1,4xx=0');
  for (let i = 0; i < 4; i++) await Promise.all(Array.from({ length: 100 }, () => infer(gw)));
  for (let i = 0; i < 5; i++) assert.equal((await infer(gw, {}, 'absent')).status, 404);
  await gw.proc.stop();
  const got = await lines(file);
  const ok = got.filter((l) => l.status === 200).length;
  assert.ok(ok > 10 && ok < 100, `${ok} of 400 at a rate of 0.1`);
  assert.equal(got.filter((l) => l.status === 404).length, 0);
  const routes = await fleet.file('routes.json', '{"models":{}}');
  for (const [args, words] of [
    [['--access-log', '/nonexistent/dir/x'], /--access-log: .*\/nonexistent\/dir\/x/],
    [['--access-log-rates', '2xx=2'], /--access-log-rates: 2xx=2/],
    [['--trace-ratio', 'half'], /trace-ratio: half: must be 0 to 1/],
    [['--otlp-endpoint', 'ftp://x'], /--otlp-endpoint/],
  ]) {
    const r = await run(ATOLL, ['gateway', '--listen', '127.0.0.1:0', '--static-routes', routes, ...args]);
    assert.notEqual(r.code, 0);
    assert.match(r.err, words);
  }
});
