// API keys, limits, budgets and usage, with OpenAI's own client, through gateways that come and go. The model is a server that
// says how many tokens it used; WORDS of a request's user make it longer.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
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
  const answers = (body.best_of ?? body.n ?? 1) * (Array.isArray(body.prompt) ? body.prompt.length : 1);
  const n = answers * (/rude/.test(body.user ?? '') ? words : Math.min(words, max));
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

const crc32c = (bytes) => {
  let crc = ~0;
  for (const b of bytes) {
    crc ^= b;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
};

// A key by the API, as another tool would make it.
let made = 0;
async function key(spec = {}, ns = 'default') {
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  const name = `k${++made}`;
  let secret = `sk-atoll-${Array.from(randomBytes(40), (b) => digits[b % 62]).join('')}`;
  for (let i = 0, crc = crc32c(Buffer.from(secret)); i < 6; i++, crc = Math.floor(crc / 62)) secret += digits[crc % 62];
  const hash = createHash('sha256').update(secret).digest('hex');
  await api('POST', `namespaces/${ns}/apikeys`, { apiVersion: 'atoll.dev/v1', kind: 'APIKey', metadata: { name }, spec: { hash, ...spec } });
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
  await known(k);
  // 0.001 a request, 10 prompt tokens 0.001, each token 0.001.
  assert.equal((await chat(client(k, { retries: 3 }), 'words=20', { max_tokens: 20 })).usage.completion_tokens, 20);
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
  await known(rude);
  const got = [];
  const cut = await refusal(
    (async () => {
      for await (const c of await chat(client(rude, { retries: 3 }), 'rude words=100000', { stream: true })) got.push(c);
    })(),
  );
  assert.equal(cut.code ?? cut.error?.code, 'insufficient_quota');
  assert.ok(got.length > 10 && got.length <= 110, `${got.length} pieces`);
  await eventually('the server was told to stop', async () => (await seen()).cut > 0);
  // By the Open Inference Protocol a request has its price, and the bytes of tensors are no tokens.
  const oip = await key({ budgets: [{ window: 'Day', amount: '0.0045' }] });
  await known(oip);
  const each = [];
  for (let i = 0; i < 8; i++) each.push((await new Gateway(gateway.url, oip.secret).infer('m', { body: `{"inputs":[${'1,'.repeat(5000)}1]}` })).status);
  assert.deepEqual(each.slice(0, 4).concat(each.slice(4)).filter((x) => x === 200).length, 4, JSON.stringify(each));
  assert.equal(each.at(-1), 429);
  // Many at once.
  const many = await key({ budgets: [{ window: 'Month', amount: '0.1' }] });
  await known(many);
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

// A gateway of its own; with a folder that it had before it needs no token any more.
async function another(name, dir, again = false, ...more) {
  const [, server] = await dev.line(/^control plane\s+(https\S+)$/m);
  const joins = [];
  if (!again) {
    const join = JSON.parse((await atoll('token', 'create', '--role', 'gateway', '--site', 'here', '-o', 'json')).out);
    joins.push('--ca-pin', join.caPin, '--token-file', await fleet.file('token', join.token));
  }
  const proc = fleet.start(`gateway ${name}`, ['gateway', '--server', server, ...joins, '--name', name, '--state', dir, '--listen', '127.0.0.1:0', '--threads', '2', '--require-keys', ...more]);
  const [, url] = await proc.line(/^ready gateway (\S+)/m);
  return { proc, url };
}

it('kill -9 loses no usage, counts none twice, and gives no money back', async () => {
  const dir = await fleet.dir('atoll-gw');
  let g = await another('killed', dir);
  const k = await key({ budgets: [{ window: 'Total', amount: '0.5' }] });
  await known(k, g.url);
  await eventually('it serves', async () => (await new Gateway(g.url, k.secret).infer('m')).status === 200);
  let fine = 1;
  let cost = 0.001;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 10; i++) {
      await chat(client(k, { ...g, retries: 3 }), 'words=4', { max_tokens: 4 });
      fine++;
      cost += 0.006;
    }
    // Killed right behind the last answer, in the middle of a stream.
    const stream = await chat(client(k, { ...g, retries: 5 }), 'words=1000 pause=20', { stream: true, max_tokens: 100 });
    const parts = stream[Symbol.asyncIterator]();
    for (let i = 0; i < 5; i++) await parts.next();
    await g.proc.kill('SIGKILL');
    await assert.rejects(async () => { for (;;) if ((await parts.next()).done) throw new Error('ended'); });
    fine++;
    g = await another('killed', dir, true);
    await known(k, g.url);
  }
  await eventually('all is told', async () => (await usage(k)).requests === fine, { timeoutMs: 10_000 });
  const told = await usage(k);
  assert.ok(told.completion >= 3 * (40 + 5) && told.completion <= 3 * (40 + 30), JSON.stringify(told));
  assert.ok(told.cost >= cost + 3 * 0.006 && told.cost <= cost + 3 * 0.1, JSON.stringify(told));
  const ledger = async () => (await api('GET', `namespaces/default/apikeys/${k.name}`)).status.budgets[0];
  await eventually('and in the ledger', async () => Math.abs(Number((await ledger()).spent) - told.cost) < 0.00001);
  // What is left can be spent, and no more.
  const all = await Promise.allSettled(Array.from({ length: 200 }, () => chat(client(k, { ...g, retries: 3 }), 'words=4', { max_tokens: 4 })));
  const more = all.filter((a) => a.status === 'fulfilled').length;
  assert.ok(told.cost + more * 0.006 <= 0.5 + 1e-9, `${told.cost} + ${more} * 0.006`);
  assert.ok(more > 10, `${more}`);
});

it('several gateways share one budget, and one that is cut off keeps to its slice', async () => {
  const a = await another('a', await fleet.dir('atoll-gw'));
  const b = await another('b', await fleet.dir('atoll-gw'));
  await api('POST', 'budgets', { apiVersion: 'atoll.dev/v1', kind: 'Budget', metadata: { name: 'red' }, spec: { team: 'red', window: 'Month', amount: '0.3' } });
  const keys = [await key({ team: 'red' }), await key({ team: 'red' })];
  for (const k of keys) for (const url of [a.url, b.url, gateway.url]) await known(k, url);
  const budget = async () => (await api('GET', 'budgets/red')).status?.ledger ?? {};
  let spent = 0; // the last ones may be cut to what is left
  const until = Date.now() + 6000;
  // Each gateway in turn, with clients that try again, until nothing is left.
  await Promise.all(
    [a.url, b.url, gateway.url, a.url].map(async (url, i) => {
      let quota = 0;
      while (quota < 2 && Date.now() < until) {
        try {
          const { usage } = await chat(client(keys[i % 2], { url, retries: 1 }), 'words=4', { max_tokens: 4 });
          spent += 0.001 + usage.prompt_tokens * 0.0001 + usage.completion_tokens * 0.001;
        } catch (e) {
          assert.equal(e.status, 429, e.stack);
          quota++;
        }
      }
    }),
  );
  // A request holds a token for each byte of its body until it is known to have had 10.
  assert.ok(spent <= 0.3 + 1e-9, `${spent}`);
  assert.ok(spent >= 0.2, `${spent}`);
  await eventually('it is told', async () => Math.abs(Number((await budget()).spent) - spent) < 1e-6).catch(async (e) => assert.fail(`${e.message}: ${spent}, ${JSON.stringify(await budget())}`));
  assert.ok(Number((await budget()).granted) <= 0.3);
  await a.proc.stop();
  await b.proc.stop();
});

it('the first request of a key is answered, also of many at once and on another gateway', async () => {
  const g = await another('fresh', await fleet.dir('atoll-gw'), false, '--key-idle', '1s');
  const keys = await Promise.all(Array.from({ length: 40 }, () => key({ budgets: [{ window: 'Day', amount: '1' }, { window: 'Month', amount: '3' }], limits: { requestsPerMinute: 60, tokensPerMinute: 100000 } })));
  await known(keys.at(-1), g.url);
  await known(keys.at(-1));
  await Promise.all(keys.map((k) => chat(client(k, g), 'words=4')));
  await Promise.all(keys.map((k) => chat(client(k), 'words=4'))); // this one has given away what it had
  // Not used any more: its money and its part of the rates go back, and what was spent stays.
  const status = async (k) => (await api('GET', `namespaces/default/apikeys/${k.name}`)).status;
  const mine = (list) => (list ?? []).find((x) => x.gateway.startsWith('fresh:'));
  await eventually('all is given back', async () => {
    const all = await Promise.all(keys.map(status));
    return all.every((s) => !mine(s.rates) && s.budgets.every((b) => Math.abs(Number(mine(b.slices).granted) - 0.006) < 1e-6 && Math.abs(Number(mine(b.slices).spent) - 0.006) < 1e-6));
  });
  assert.equal((await chat(client(keys[0], g), 'words=4')).usage.completion_tokens, 4);
  await g.proc.stop();
});

it('several gateways let through the rate of a key together, not each', async () => {
  const a = await another('rate-a', await fleet.dir('atoll-gw'));
  const b = await another('rate-b', await fleet.dir('atoll-gw'));
  const k = await key({ limits: { requestsPerMinute: 60 } });
  for (const { url } of [a, b]) await known(k, url);
  const from = Date.now();
  let [fine, first] = [{ a: 0, b: 0 }, true];
  while (Date.now() - from < 4000) {
    for (const [name, g] of Object.entries({ a, b })) {
      const r = await Promise.all(Array.from({ length: first ? 20 : 5 }, () => new Gateway(g.url, k.secret).infer('m')));
      fine[name] += r.filter((x) => x.status === 200).length;
      assert.ok(r.every((x) => x.status === 200 || x.status === 429), JSON.stringify(r.map((x) => x.status)));
      if (first && name === 'b') assert.ok(r.some((x) => x.status === 200), 'the second gateway serves, too');
    }
    first = false;
  }
  const most = 60 + (Date.now() - from) / 1000 + 2;
  assert.ok(fine.a + fine.b <= most, `${JSON.stringify(fine)} of ${most}`);
  assert.ok(fine.a + fine.b >= 50, JSON.stringify(fine));
  const { rates } = (await api('GET', `namespaces/default/apikeys/${k.name}`)).status;
  assert.ok(rates.reduce((s, r) => s + r.milli, 0) <= 1000, JSON.stringify(rates));
  await a.proc.stop();
  await b.proc.stop();
});

it('what a gateway that is gone for good cannot have spent is given back', async () => {
  const lost = await another('lost', await fleet.dir('atoll-gw'));
  const k = await key({ budgets: [{ window: 'Total', amount: '3' }] });
  await known(k, lost.url);
  await chat(client(k, lost), 'words=4', { max_tokens: 4 });
  const slices = async () => (await api('GET', `namespaces/default/apikeys/${k.name}`)).status.budgets[0].slices;
  const its = async () => (await slices()).find((s) => s.gateway.startsWith('lost:'));
  await eventually('it has told', async () => Number((await its()).spent) === 0.006);
  await eventually('it is known to be there', async () => (await call(admin, 'GET', '/apis/atoll.dev/v1/gatewayreports/lost')).body?.status?.meter);
  await lost.proc.kill('SIGKILL');
  const { granted, ceiling } = await its();
  assert.ok(Number(ceiling) < Number(granted), JSON.stringify(await its()));
  await known(k);
  let spent = 0;
  const spend = async () => {
    for (let refused = 0; refused < 1; ) {
      try {
        const { usage: u } = await chat(client(k), 'words=100', { max_tokens: 100 });
        spent += 0.002 + u.completion_tokens * 0.001;
      } catch (e) {
        assert.equal(e.status, 429, e.stack);
        refused++;
      }
    }
  };
  await spend();
  assert.ok(spent <= 3 - Number(granted) + 1e-9 && spent > 3 - Number(granted) - 0.15, `${spent} ${granted}`);
  await api('DELETE', 'gatewayreports/lost'); // as it goes by itself ten minutes after its last word
  await eventually('what it cannot have spent is there again', async () => (await chat(client(k), 'words=4', { max_tokens: 4 }).catch(() => null)) !== null);
  spent += 0.006;
  await spend();
  assert.ok(spent <= 3 - Number(ceiling) + 1e-9 && spent > 3 - Number(ceiling) - 0.15, `${spent} ${ceiling}`);
});

it('no way of asking passes a budget: batches, choices, streams that are left or revoked, answers without usage', async () => {
  const limit = 0.2;
  const cost = async (k) => (await usage(k)).cost;
  const ways = {
    batch: (c) => c.completions.create({ model: 'm', prompt: Array.from({ length: 30 }, () => 'a'), max_tokens: 10, user: 'words=10' }),
    choices: (c) => chat(c, 'words=20', { n: 20, max_tokens: 20 }),
    bestOf: (c) => c.completions.create({ model: 'm', prompt: 'a', best_of: 30, max_tokens: 20, user: 'words=20' }),
    twoLimits: (c) => chat(c, 'words=300', { max_tokens: 1, max_completion_tokens: 300 }),
    embeddings: (c) => c.embeddings.create({ model: 'm', input: 'x'.repeat(500) }),
  };
  const keys = {};
  for (const way of Object.keys(ways)) keys[way] = await key({ budgets: [{ window: 'Day', amount: `${limit}` }] });
  const left = (keys.left = await key({ budgets: [{ window: 'Day', amount: `${limit}` }] }));
  const gone = await key({ budgets: [{ window: 'Day', amount: '1' }] });
  await known(gone);
  for (const [way, ask] of Object.entries(ways)) {
    await Promise.all(Array.from({ length: 4 }, async () => { for (let i = 0; i < 4; i++) await ask(client(keys[way])).catch((e) => assert.equal(e.status, 429, e.stack)); }));
  }
  // Clients that go away in the middle are charged for what had come, and hold nothing any more.
  for (let i = 0; i < 10; i++) {
    // That one has left may come a moment later: what it holds is waited for.
    const stream = await chat(client(left, { retries: 5 }), 'words=50 pause=5', { stream: true, max_tokens: 50 }).catch((e) => assert.equal(e.status, 429, e.stack));
    if (!stream) break;
    const parts = stream[Symbol.asyncIterator]();
    for (let n = 0; n < 10; n++) await parts.next();
    stream.controller.abort();
  }
  // A stream of a key that is revoked ends.
  const revoked = await refusal((async () => {
    let n = 0;
    for await (const _ of await chat(client(gone), 'words=500 pause=20', { stream: true, max_tokens: 500 })) if (++n === 3) await atoll('key', 'revoke', gone.name);
  })());
  assert.equal(revoked.code ?? revoked.error?.code, 'invalid_api_key', revoked.stack);
  for (const [way, k] of Object.entries(keys)) {
    await eventually(`${way} is told`, async () => (await cost(k)) > 0 || way === 'twoLimits');
    assert.ok((await cost(k)) <= limit + 1e-9, `${way}: ${await cost(k)}`);
  }
  assert.ok((await cost(keys.left)) >= 0.05, `${await cost(keys.left)}`);
});

it('answers are kept for who asks the same, where that is wanted, and for nobody else', async () => {
  const cache = { share: 'Key', ttl: '1m', charge: 'Request' };
  const k = await key({ cache });
  const stranger = await key({ cache });
  await known(k);
  await known(stranger);
  await seen();
  const ask = async (who, more = {}) => {
    const { data, response } = await chat(client(who), 'words=7 wait=50', { temperature: 0, ...more }).withResponse();
    return { hit: response.headers.get('atoll-cache'), text: data.choices[0].message.content };
  };
  // One loop keeps for itself: two of them make it twice at most, however many ask.
  const all = await Promise.all(Array.from({ length: 30 }, () => ask(k)));
  const made = (await seen()).seen.length;
  assert.ok(made <= 2, `${made}`);
  assert.equal(all.filter((a) => a.hit === 'hit').length, 30 - made);
  assert.equal(new Set(all.map((a) => a.text)).size, 1);
  assert.equal((await ask(stranger)).hit, 'miss');
  assert.equal((await ask(k, { temperature: 0.5 })).hit, null);
  await eventually('it is counted as configured', async () => (await usage(k)).requests === 31);
  const told = await usage(k);
  assert.equal(told.cached, 30 - made);
  assert.ok(Math.abs(told.cost - (31 * 0.001 + (made + 1) * 0.008)) < 1e-6, JSON.stringify(told));
  // Streams, too; and by the Open Inference Protocol.
  const stream = async () => {
    const { data, response } = await chat(client(k), 'words=3', { seed: 1, stream: true }).withResponse();
    const parts = [];
    for await (const c of data) parts.push(c.choices[0].delta.content);
    return { parts: parts.join('|'), hit: response.headers.get('atoll-cache') };
  };
  const streams = [];
  for (let i = 0; i < 4; i++) streams.push(await stream());
  assert.ok(streams.every((s) => s.parts === 'w |w |w '), JSON.stringify(streams));
  assert.ok(streams.filter((s) => s.hit === 'hit').length >= 2);
  const oip = new Gateway(gateway.url, k.secret);
  const n = [];
  for (let i = 0; i < 4; i++) n.push((await oip.infer('m', { body: '{"inputs":[]}' })).headers['atoll-cache']);
  assert.ok(n.filter((h) => h === 'hit').length >= 2, JSON.stringify(n));
  // Who wants another version does not get that answer.
  const pinned = await oip.infer('m', { body: '{"inputs":[]}', headers: { 'X-Atoll-Version': 'another' } });
  assert.notEqual(pinned.headers['atoll-cache'], 'hit', JSON.stringify(pinned.headers));
});

it('what was used is shown as a table, as JSON and for spreadsheets; and nobody opens what is not his', async () => {
  const made = await atoll('key', 'create', 'shown', '--team', 'blue', '--rpm', '100', '--budget', '5/month', '--expires', '24h', '-o', 'json');
  const { secret, key: object } = JSON.parse(made.out);
  assert.equal(object.spec.hash, createHash('sha256').update(secret).digest('hex'));
  assert.ok(!JSON.stringify(object).includes(secret));
  const k = { name: 'shown', ns: 'default', secret };
  await known(k);
  await chat(client(k, { retries: 3 }), 'words=9');
  await eventually('it is told', async () => (await usage(k)).requests === 1);
  const rows = JSON.parse((await atoll('usage', '--team', 'blue', '-o', 'json')).out);
  assert.deepEqual(rows, [{ namespace: 'default', team: 'blue', key: 'shown', model: 'default/m', requests: 1, errors: 0, cached: 0, promptTokens: 10, completionTokens: 9, cost: '0.011' }]);
  assert.equal((await atoll('usage', '--by', 'team', '--team', 'blue', '-o', 'csv')).out, 'team,requests,errors,cached,promptTokens,completionTokens,cost\r\nblue,1,0,0,10,9,0.011\r\n');
  assert.match((await atoll('usage', '--key', 'shown')).out, /NAMESPACE +TEAM +KEY +MODEL[^]*default +blue +shown +default\/m +1/);
  assert.match((await atoll('key', 'list')).out, /shown +sk-atoll-\S{5} +blue/);
  // Bad words name their place.
  for (const [spec, field] of [
    [{ hash: 'x' }, 'spec.hash'],
    [{ hash: 'a'.repeat(64), budgets: [{ window: 'Day', amount: '-1' }] }, 'spec.budgets[0].amount'],
    [{ hash: 'a'.repeat(64), budgets: [{ window: 'Year', amount: '1' }] }, 'spec.budgets[0].window'],
    [{ hash: 'a'.repeat(64), models: ['/m'] }, 'spec.models[0]'],
    [{ hash: 'a'.repeat(64), previousHash: 'b'.repeat(64) }, 'spec.previousUntil'],
  ]) {
    const r = await api('POST', 'namespaces/default/apikeys', { apiVersion: 'atoll.dev/v1', kind: 'APIKey', metadata: { name: 'bad' }, spec }, [422]);
    assert.ok(r.details.causes.some((c) => c.field === field), JSON.stringify(r));
  }
  await api('POST', 'budgets', { apiVersion: 'atoll.dev/v1', kind: 'Budget', metadata: { name: 'none' }, spec: {} }, [422]);
  // A digest that is copied takes nothing over.
  await api('POST', 'namespaces/default/apikeys', { apiVersion: 'atoll.dev/v1', kind: 'APIKey', metadata: { name: 'thief' }, spec: { hash: object.spec.hash, models: ['nothing'] } });
  const other = await key();
  await known(other);
  await chat(client(k, { retries: 3 }));
});

it('a gateway that the control plane has left spends its slice, and no more', async () => {
  const g = await another('alone', await fleet.dir('atoll-gw'));
  const k = await key({ budgets: [{ window: 'Total', amount: '20' }] });
  await known(k, g.url);
  await chat(client(k, g), 'words=4', { max_tokens: 4 });
  // What it may spend unheard is a part of its slice: the rest may be given to others.
  const slice = (await api('GET', `namespaces/default/apikeys/${k.name}`)).status.budgets[0].slices.find((s) => s.gateway.startsWith('alone:'));
  const granted = Number(slice.ceiling);
  assert.ok(granted > 2 && granted < Number(slice.granted) && Number(slice.granted) < 10, JSON.stringify(slice));
  const model = (await api('GET', 'instances')).items.find((i) => i.metadata.labels['atoll.dev/deployment'] === 'm');
  assert.ok(model);
  dev.child.kill('SIGSTOP'); // control plane, and with it whatever could give more money
  try {
    let spent = 0.006;
    for (;;) {
      try {
        const { usage: u } = await chat(client(k, g), 'words=500', { max_tokens: 500 });
        spent += 0.001 + u.prompt_tokens * 0.0001 + u.completion_tokens * 0.001;
      } catch (e) {
        assert.equal(e.status, 429, e.stack);
        break;
      }
    }
    assert.ok(spent <= granted + 1e-9, `${spent} of ${granted}`);
    assert.ok(spent > granted - 1, `${spent} of ${granted}`);
  } finally {
    dev.child.kill('SIGCONT');
  }
  await eventually('and then it is given more', async () => (await chat(client(k, { ...g, retries: 3 }), 'words=4', { max_tokens: 4 }).catch(() => null)) !== null);
});

it('kill -9 of the control plane, the gateway and the machine together loses no usage and counts none twice', async () => {
  const k = await key({ budgets: [{ window: 'Total', amount: '1' }] });
  await known(k);
  for (let i = 0; i < 20; i++) await chat(client(k), 'words=4', { max_tokens: 4 });
  await dev.kill('SIGKILL');
  dev = fleet.start('atoll dev again', ['dev', '--state', state, '--free-ports', '--gateway-threads', '2', '--site', 'here']);
  await dev.line(/^ready dev$/m);
  const [, url] = await dev.line(/^gateway\s+(http\S+)$/m);
  admin = await credentials(kubeconfig);
  await eventually('all of it is told', async () => (await usage(k)).requests === 20, { timeoutMs: 15_000 });
  assert.deepEqual(await usage(k), { requests: 20, prompt: 200, completion: 80, cost: 0.12, cached: 0 });
  await known(k, url);
  await eventually('it serves', async () => (await chat(client(k, { url }), 'words=4', { max_tokens: 4 }).catch(() => null)) !== null, { timeoutMs: 15_000 });
  await eventually('the ledger goes on', async () => Math.abs(Number((await api('GET', `namespaces/default/apikeys/${k.name}`)).status.budgets[0].spent) - 0.126) < 1e-6);
});
