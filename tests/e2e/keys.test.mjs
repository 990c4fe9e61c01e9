// API keys, limits, budgets and usage, with OpenAI's own client, through gateways that come and go. The model is a server that
// says how many tokens it used; WORDS of a request's user make it longer.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import OpenAI from 'openai';
import { ATOLL, eventually, Fleet, run } from './lib/atoll.mjs';
import { Gateway, modelServer } from './lib/gateway.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);

const SERVER = `
import http from 'node:http';
let seen = [];
let cut = 0;
const server = http.createServer(async (req, res) => {
  const chunks = [];
  for await (const c of req) chunks.push(c);
  const text = Buffer.concat(chunks).toString();
  if (req.url === '/seen') return res.end(JSON.stringify({ seen: seen.splice(0), cut }));
  if (!text) return res.end('{}');
  const body = JSON.parse(text);
  seen.push({ url: req.url, body, client: req.headers['atoll-client'] });
  seen = seen.slice(-50);
  const type = { 'Content-Type': 'application/json' };
  if (req.url.startsWith('/v2/')) return res.writeHead(200, type).end(JSON.stringify({ outputs: [], n: seen.length }));
  const max = body.max_tokens ?? body.max_completion_tokens ?? 1e9;
  const words = Number(/words=(\\d+)/.exec(body.user ?? '')?.[1] ?? 5);
  const n = /rude/.test(body.user ?? '') ? words : Math.min(words, max);
  const usage = { prompt_tokens: 10, completion_tokens: n, total_tokens: 10 + n };
  if (req.url === '/v1/embeddings') return res.writeHead(200, type).end(JSON.stringify({ object: 'list', data: [{ object: 'embedding', index: 0, embedding: [0.5] }], model: 'm', usage: { prompt_tokens: 10, total_tokens: 10 } }));
  const one = (choice) => ({ id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [{ index: 0, finish_reason: null, ...choice }] });
  if (!body.stream) {
    const wait = Number(/wait=(\\d+)/.exec(body.user ?? '')?.[1] ?? 0);
    return setTimeout(() => res.writeHead(200, type).end(JSON.stringify({ ...one({ message: { role: 'assistant', content: 'w '.repeat(n) }, finish_reason: 'stop' }), usage })), wait);
  }
  res.writeHead(200, { 'Content-Type': 'text/event-stream' });
  res.on('close', () => { cut += !res.writableFinished; });
  const pause = Number(/pause=(\\d+)/.exec(body.user ?? '')?.[1] ?? 0);
  for (let i = 0; i < n && !res.destroyed; i++) {
    res.write('data: ' + JSON.stringify({ ...one({ delta: { content: 'w ' } }), object: 'chat.completion.chunk' }) + '\\n\\n');
    await new Promise((done) => (pause ? setTimeout(done, pause) : setImmediate(done)));
  }
  if (body.stream_options?.include_usage) res.write('data: ' + JSON.stringify({ ...one({}), object: 'chat.completion.chunk', choices: [], usage }) + '\\n\\n');
  res.end('data: [DONE]\\n\\n');
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
`;

let dev, admin, kubeconfig, gateway, state;

const api = async (method, target, body, want = [200, 201]) => {
  const type = method === 'PATCH' ? { 'Content-Type': 'application/merge-patch+json' } : {};
  const r = await call(admin, method, `/apis/atoll.dev/v1/${target}`, body, type);
  assert.ok(want.includes(r.status), `${method} ${target}: ${r.status} ${JSON.stringify(r.body)}`);
  return r.body;
};
const atoll = (...args) => run(ATOLL, args, { env: { KUBECONFIG: kubeconfig } });

// A key by the API, as another tool would make it.
let made = 0;
async function key(spec = {}, ns = 'default') {
  const secret = (await atoll('key', 'create', `k${++made}`, '-n', ns, '-o', 'name')).out.trim();
  const hash = createHash('sha256').update(secret).digest('hex');
  const name = `k${made}`;
  await api('PATCH', `namespaces/${ns}/apikeys/${name}`, { spec });
  assert.equal((await api('GET', `namespaces/${ns}/apikeys/${name}`)).spec.hash, hash);
  return { name, ns, secret };
}
const client = (k, { url = gateway.url, retries = 0 } = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: k.secret, maxRetries: retries });
const chat = (c, user, more = {}) => c.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'hello' }], user, ...more });
const refusal = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.fail('it was not refused');
};
const known = (k, url) => eventually(`${k.name} is known`, async () => (await new Gateway(url ?? gateway.url, k.secret).ask('/v1/models', { method: 'GET' })).status === 200);
// Known, and with money: what is asked for in advance has come.
async function ready(k, url) {
  await known(k, url);
  await eventually(`${k.name} has money`, async () => {
    const object = await api('GET', `namespaces/${k.ns}/apikeys/${k.name}`);
    return (object.status?.budgets ?? []).length === (object.spec.budgets ?? []).length && (object.status?.budgets ?? []).every((b) => b.slices?.length > 0);
  });
}
const usage = async (k) => {
  const rows = (await api('GET', 'usagerecords')).items.flatMap((r) => r.spec.rows ?? []).filter((r) => r.key === k.name);
  const sum = (f) => rows.reduce((s, r) => s + Number(r[f] ?? 0), 0);
  return { requests: sum('requests'), prompt: sum('promptTokens'), completion: sum('completionTokens'), cost: Math.round(sum('cost') * 1e6) / 1e6, cached: sum('cached') };
};
const seen = async () => {
  const instance = (await api('GET', 'instances')).items.find((i) => i.metadata.labels['atoll.dev/deployment'] === 'm');
  return (await fetch(`http://${instance.status.endpoint}/seen`)).json();
};

it('a gateway and a model come up', async () => {
  state = await fleet.dir('atoll-keys');
  dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--gateway-threads', '2', '--site', 'here']);
  await dev.line(/^ready dev$/m);
  const [, url] = await dev.line(/^gateway\s+(http\S+)$/m);
  kubeconfig = path.join(state, 'admin.kubeconfig');
  admin = await credentials(kubeconfig);
  gateway = new Gateway(url, null, dev);
  const script = path.join(await fleet.dir('atoll-model'), 'server.mjs');
  await writeFile(script, SERVER);
  const price = { inputTokens: '100', outputTokens: '1000', request: '0.001' }; // a token of an answer: a thousandth of a dollar
  await api('POST', 'namespaces/default/deployments', modelServer('m', script, { spec: { traffic: { price } } }));
  await api('POST', 'namespaces/default/deployments', modelServer('other', script));
  const k = await key();
  await known(k);
  await eventually('they serve', async () => (await client(k).models.list()).data.filter((m) => m.ready).length === 2);
});

it('a key opens models as the client expects, and no other does', async () => {
  const k = await key({ models: ['m'] });
  await known(k);
  const answer = await chat(client(k));
  assert.equal(answer.usage.completion_tokens, 5);
  const other = await refusal(client(k).chat.completions.create({ model: 'other', messages: [] }));
  assert.equal(other.status, 404);
  assert.equal(other.code, 'model_not_found');
  const absent = await refusal(client(k).chat.completions.create({ model: 'absent', messages: [] }));
  assert.equal(other.message.replace('other', 'absent'), absent.message);
  assert.deepEqual((await client(k).models.list()).data.map((m) => m.id), ['m']);
  assert.equal((await new Gateway(gateway.url, k.secret).infer('other')).status, 404);
  for (const secret of [`${k.secret}x`, k.secret.slice(0, -1), `${k.secret.slice(0, 20)}AAAA${k.secret.slice(24)}`]) {
    const e = await refusal(chat(client({ secret })));
    assert.equal(e.status, 401);
    assert.equal(e.code, 'invalid_api_key');
    assert.ok(e instanceof OpenAI.AuthenticationError);
  }
  const uid = (await api('GET', `namespaces/default/apikeys/${k.name}`)).metadata.uid;
  assert.ok((await seen()).seen.some((s) => s.client === uid));
});

it('limits of requests and of tokens are told in headers, and refuse what is too much', async () => {
  const k = await key({ limits: { requestsPerMinute: 3, tokensPerMinute: 10000 } });
  await known(k);
  const { response } = await chat(client(k)).withResponse();
  assert.equal(response.headers.get('x-ratelimit-limit-requests'), '3');
  assert.equal(response.headers.get('x-ratelimit-remaining-requests'), '2');
  assert.equal(response.headers.get('x-ratelimit-limit-tokens'), '10000');
  assert.match(response.headers.get('x-ratelimit-reset-requests'), /^\d+s$/);
  await chat(client(k));
  assert.equal((await new Gateway(gateway.url, k.secret).infer('m')).status, 200);
  const e = await refusal(chat(client(k)));
  assert.ok(e instanceof OpenAI.RateLimitError);
  assert.equal(e.code, 'rate_limit_exceeded');
  assert.equal(e.type, 'requests');
  assert.ok(Number(e.headers.get('retry-after')) >= 1 && Number(e.headers.get('retry-after')) <= 20);
  assert.equal((await new Gateway(gateway.url, k.secret).infer('m')).status, 429);
  // Parallel requests over two loops: exactly as many as the limit says.
  const p = await key({ limits: { requestsPerMinute: 20 } });
  await known(p);
  const all = await Promise.all(Array.from({ length: 60 }, () => new Gateway(gateway.url, p.secret).infer('m')));
  assert.equal(all.filter((a) => a.status === 200).length, 20);
  // Tokens: what an answer took is counted at its end.
  const t = await key({ limits: { tokensPerMinute: 100 } });
  await known(t);
  await chat(client(t), 'words=200');
  const tokens = await refusal(chat(client(t)));
  assert.equal(tokens.type, 'tokens');
  assert.equal(tokens.status, 429);
  const large = await refusal(chat(client(t), undefined, { messages: [{ role: 'user', content: 'x'.repeat(2000) }] }));
  assert.match(large.message, /too large/);
});

it('a budget ends what it does not pay for: whole answers, streams and many at once', async () => {
  const k = await key({ budgets: [{ window: 'Day', amount: '0.05' }] });
  await ready(k);
  // 0.001 a request, 10 prompt tokens 0.001, each token 0.001.
  assert.equal((await chat(client(k), 'words=20', { max_tokens: 20 })).usage.completion_tokens, 20);
  const capped = await chat(client(k), 'words=1000');
  assert.ok(capped.usage.completion_tokens < 28, `${capped.usage.completion_tokens}`);
  const e = await refusal(chat(client(k), 'words=1000'));
  assert.equal(e.status, 429);
  assert.equal(e.code, 'insufficient_quota');
  const spent = async () => Number((await api('GET', `namespaces/default/apikeys/${k.name}`)).status.budgets[0].spent);
  await eventually('it is told', async () => (await spent()) > 0.03);
  assert.ok((await spent()) <= 0.05);
  // A server that sends more than it may: the stream ends with an error.
  const rude = await key({ budgets: [{ window: 'Total', amount: '0.1' }] });
  await ready(rude);
  const got = [];
  const cut = await refusal(
    (async () => {
      for await (const c of await chat(client(rude), 'rude words=100000', { stream: true })) got.push(c);
    })(),
  );
  assert.equal(cut.code ?? cut.error?.code, 'insufficient_quota');
  assert.ok(got.length > 10 && got.length <= 110, `${got.length} pieces`);
  await eventually('the server was told to stop', async () => (await seen()).cut > 0);
  // Many at once.
  const many = await key({ budgets: [{ window: 'Month', amount: '0.1' }] });
  await ready(many);
  const answers = await Promise.allSettled(Array.from({ length: 40 }, () => chat(client(many), 'words=10 wait=50', { max_tokens: 10 })));
  const fine = answers.filter((a) => a.status === 'fulfilled').length;
  assert.ok(fine >= 1 && fine * 0.012 <= 0.1, `${fine}`);
  await eventually('usage', async () => (await usage(many)).requests === fine);
  assert.ok((await usage(many)).cost <= 0.1);
});

it('streams are counted by what the server says, though the client did not ask for it', async () => {
  const k = await key();
  await known(k);
  const got = [];
  for await (const c of await chat(client(k), 'words=17', { stream: true })) got.push(c);
  assert.equal(got.length, 17);
  assert.ok(got.every((c) => c.choices.length === 1));
  await eventually('it is counted', async () => (await usage(k)).completion === 17);
  const asked = [];
  for await (const c of await chat(client(k), 'words=3', { stream: true, stream_options: { include_usage: true } })) asked.push(c);
  assert.equal(asked.at(-1).usage.completion_tokens, 3);
  await eventually('and that', async () => (await usage(k)).completion === 20);
  assert.deepEqual(await usage(k), { requests: 2, prompt: 20, completion: 20, cost: 0.024, cached: 0 });
  await eventually('metrics tell of it', async () => (await gateway.metric('atoll_gateway_usage_tokens_total', { kind: 'completion', namespace: 'default' })) >= 20);
});

it('revoked, expired and rotated keys open nothing more within a second', async () => {
  const k = await key();
  await known(k);
  assert.match((await atoll('key', 'revoke', k.name)).out, /revoked/);
  const from = Date.now();
  await eventually('it is refused', async () => (await new Gateway(gateway.url, k.secret).infer('m')).status === 401, { everyMs: 10 });
  assert.ok(Date.now() - from < 1000);
  const r = await key();
  await known(r);
  const fresh = { secret: (await atoll('key', 'rotate', r.name, '--grace', '2s', '-o', 'name')).out.trim() };
  await eventually('the new one opens', async () => (await new Gateway(gateway.url, fresh.secret).infer('m')).status === 200);
  assert.equal((await new Gateway(gateway.url, r.secret).infer('m')).status, 200);
  await eventually('the old one ends', async () => (await new Gateway(gateway.url, r.secret).infer('m')).status === 401);
  const e = await key({ expires: new Date(Date.now() + 3000).toISOString() });
  await known(e);
  await eventually('it expires', async () => (await new Gateway(gateway.url, e.secret).infer('m')).status === 401);
});
