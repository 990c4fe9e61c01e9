// OpenAI's own client through the gateway: what it sends, what it makes of answers, and when it tries again. The replicas
// are servers of this file that answer as such servers do.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import { gzipSync } from 'node:zlib';
import OpenAI from 'openai';
import { eventually, Fleet } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const TOKENS = ['Streams', ' come', ' in', ' pieces', '.'];
const USAGE = { prompt_tokens: 7, completion_tokens: TOKENS.length, total_tokens: 12, prompt_tokens_details: { cached_tokens: 3 } };
const VECTOR = [0.25, -1.5, 3.4028234663852886e38, 1e-7].map(Math.fround);

// A replica. answer(req, res, body) may answer instead of it and return true.
async function replica(answer = () => false) {
  const self = { seen: [], cut: 0, open: 0 };
  self.server = http.createServer(async (req, res) => {
    const chunks = [];
    for await (const c of req) chunks.push(c);
    const text = Buffer.concat(chunks).toString();
    const body = JSON.parse(text);
    self.seen.push({ url: req.url, headers: req.headers, text, body });
    self.open++;
    res.on('close', () => {
      self.open--;
      if (!res.writableFinished) self.cut++;
    });
    if (await answer(req, res, body, self)) return;
    if (req.url === '/v1/embeddings') embed(res, body);
    else if (body.stream) stream(res, body, req.url);
    else whole(res, body, req.url);
  });
  self.server.listen(0, '127.0.0.1');
  await once(self.server, 'listening');
  self.server.unref();
  self.endpoint = `127.0.0.1:${self.server.address().port}`;
  self.stop = () => {
    self.server.closeAllConnections();
    return new Promise((done) => self.server.close(done));
  };
  return self;
}

function json(res, status, value, headers = {}) {
  res.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(value));
}

function whole(res, body, url) {
  const content = TOKENS.join('');
  const chat = url.includes('chat');
  const choice = { index: 0, finish_reason: 'stop', logprobs: null, ...(chat ? { message: { role: 'assistant', content } } : { text: content }) };
  const headers = { 'x-ratelimit-limit-requests': '60', 'x-ratelimit-remaining-requests': '59', 'x-ratelimit-reset-tokens': '6m0s' };
  json(res, 200, { id: 'c-1', object: chat ? 'chat.completion' : 'text_completion', created: 1, model: body.model, choices: [choice], usage: USAGE }, headers);
}

const event = (value) => `data: ${JSON.stringify(value)}\n\n`;

function* pieces(body, chat) {
  const usage = body.stream_options?.include_usage ? { usage: null } : {};
  const one = (choice) => ({ id: 'c-1', object: chat ? 'chat.completion.chunk' : 'text_completion', created: 1, model: body.model, choices: [{ index: 0, finish_reason: null, ...choice }], ...usage });
  if (chat) yield one({ delta: { role: 'assistant', content: '' } });
  for (const t of [...TOKENS, ...(body.user ? [body.user] : [])]) yield one(chat ? { delta: { content: t } } : { text: t });
  yield one({ ...(chat ? { delta: {} } : { text: '' }), finish_reason: 'stop' });
  if (body.stream_options?.include_usage) yield { ...one({}), choices: [], usage: USAGE };
}

async function stream(res, body, url) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream' });
  res.write(': keepalive\n\n');
  for (const piece of pieces(body, url.includes('chat'))) {
    res.write(event(piece));
    await new Promise(setImmediate);
  }
  res.end('data: [DONE]\n\n');
}

function embed(res, body) {
  const bytes = Buffer.from(Float32Array.from(VECTOR).buffer);
  const data = [body.input].flat().map((_, index) => ({ object: 'embedding', index, embedding: body.encoding_format === 'base64' ? bytes.toString('base64') : VECTOR }));
  json(res, 200, { object: 'list', data, model: body.model, usage: { prompt_tokens: 2, total_tokens: 2 } });
}

async function gateway(models, args = []) {
  const file = await fleet.file('routes.json', JSON.stringify({ models: Object.fromEntries(Object.entries(models).map(([name, replicas]) => [name, replicas.map((r, i) => ({ endpoint: r.endpoint, instance: `${name}-${i + 1}`, site: 'here' }))])) }));
  const proc = fleet.start('atoll gateway', ['gateway', '--listen', '127.0.0.1:0', '--static-routes', file, ...args]);
  const [, url] = await proc.line(/^ready gateway (\S+)/m);
  const metric = async (line) => {
    const text = await (await fetch(`${url}/metrics`)).text();
    return Number(text.split('\n').find((l) => l.startsWith(`${line} `))?.split(' ').at(-1) ?? 0);
  };
  return { url, metric, client: (options = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'secret', ...options }) };
}

const ASK = { model: 'chat', messages: [{ role: 'user', content: 'Say "{\\"model\\":\\"x\\"}" 😀' }] };
const thrown = (promise) => promise.then(() => assert.fail('should have failed'), (error) => error);

it('models are listed and retrieved, whatever is in their names', async () => {
  const gw = await gateway({ chat: [], 'org/llama-3': [] });
  const list = await gw.client().models.list();
  assert.deepEqual(list.data.map((m) => m.id).sort(), ['chat', 'org/llama-3']);
  assert.ok(list.data.every((m) => m.object === 'model' && typeof m.created === 'number' && m.owned_by === 'atoll'));
  assert.equal((await gw.client().models.retrieve('org/llama-3')).id, 'org/llama-3');
  assert.equal((await (await fetch(`${gw.url}/v1/models/org/llama-3`)).json()).id, 'org/llama-3');
  assert.match((await gw.client().models.retrieve('chat'))._request_id, /^[0-9a-f]{16}$/);
  const error = await thrown(gw.client().models.retrieve('absent'));
  assert.ok(error instanceof OpenAI.NotFoundError);
  assert.equal(error.code, 'model_not_found');
});

it('a chat: the request arrives as it was sent, usage and rate limits come back as they are', async () => {
  const r = await replica();
  const gw = await gateway({ chat: [r] });
  const { data, response, request_id } = await gw.client({ defaultHeaders: { 'X-Request-Id': 'mine-1' } }).chat.completions.create(ASK).withResponse();
  assert.equal(data.choices[0].message.content, TOKENS.join(''));
  assert.deepEqual(data.usage, USAGE);
  assert.equal(request_id, 'mine-1');
  assert.equal(response.headers.get('x-ratelimit-remaining-requests'), '59');
  assert.equal(response.headers.get('x-ratelimit-reset-tokens'), '6m0s');
  assert.equal(response.headers.get('x-atoll-instance'), 'chat-1');
  assert.equal(r.seen[0].url, '/v1/chat/completions');
  assert.equal(r.seen[0].text, JSON.stringify(ASK));
  assert.equal(r.seen[0].headers['x-request-id'], 'mine-1');
  assert.equal(r.seen[0].headers.authorization, undefined); // the gateway's token is no replica's business
  const other = await gw.client().chat.completions.create(ASK);
  assert.match(other._request_id, /^[0-9a-f]{16}$/);
  assert.equal(r.seen[1].headers['x-request-id'], other._request_id);
  assert.equal(await gw.metric('atoll_gateway_requests_total{model="chat",site="here",code="200"}'), 2);
});

it('a streamed chat: chunks as they come, usage last; completions and the helper likewise', async () => {
  const r = await replica();
  const gw = await gateway({ chat: [r] });
  const got = [];
  for await (const chunk of await gw.client().chat.completions.create({ ...ASK, stream: true, stream_options: { include_usage: true } })) got.push(chunk);
  assert.deepEqual(got.slice(0, -1).map((c) => c.choices[0].delta.content ?? '').join(''), TOKENS.join(''));
  assert.ok(got.slice(0, -1).every((c) => c.usage === null));
  assert.deepEqual([got.at(-1).choices, got.at(-1).usage], [[], USAGE]);
  const final = await gw.client().chat.completions.stream(ASK).finalChatCompletion();
  assert.equal(final.choices[0].message.content, TOKENS.join(''));
  let text = '';
  for await (const chunk of await gw.client().completions.create({ model: 'chat', prompt: 'x', stream: true })) text += chunk.choices[0].text;
  assert.equal(text, TOKENS.join(''));
  const plain = await gw.client().completions.create({ model: 'chat', prompt: 'x' });
  assert.deepEqual([plain.choices[0].text, plain.usage], [TOKENS.join(''), USAGE]);
  assert.equal(await gw.metric('atoll_gateway_stream_first_byte_seconds_count{model="chat"}'), 3);
});

it('each piece of a stream is passed on before the next one is made', async () => {
  let more;
  const r = await replica(async (req, res, body) => {
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (const piece of pieces(body, true)) {
      const asked = new Promise((done) => (more = done));
      res.write(event(piece));
      await asked; // not before the client has it
    }
    res.end('data: [DONE]\n\n');
    return true;
  });
  const gw = await gateway({ chat: [r] });
  let n = 0;
  for await (const chunk of await gw.client().chat.completions.create({ ...ASK, stream: true })) {
    assert.equal(chunk.object, 'chat.completion.chunk');
    n++;
    more();
  }
  assert.equal(n, TOKENS.length + 2);
});

it('a client that leaves in the middle of a stream stops the replica, and so does one that waits for the first byte', async () => {
  const r = await replica(async (req, res, body, self) => {
    if (body.user === 'silent') return true;
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (let n = 0; !res.destroyed; n++) {
      res.write(event({ id: 'c-1', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content: `${n} ` }, finish_reason: null }] }));
      await Promise.race([new Promise((done) => setTimeout(done, 5)), once(res, 'close')]);
    }
    return true;
  });
  const gw = await gateway({ chat: [r] });
  let n = 0;
  for await (const _ of await gw.client().chat.completions.create({ ...ASK, stream: true })) if (++n === 3) break;
  await eventually('the replica sees the end', () => r.cut === 1 && r.open === 0);
  const abort = new AbortController();
  const waiting = thrown(gw.client().chat.completions.create({ ...ASK, user: 'silent' }, { signal: abort.signal }));
  await eventually('the replica has it', () => r.open === 1);
  abort.abort();
  assert.ok((await waiting) instanceof OpenAI.APIUserAbortError);
  await eventually('the replica sees that end too', () => r.cut === 2 && r.open === 0);
  assert.equal(await gw.metric('atoll_gateway_requests_total{model="chat",site="here",code="499"}'), 2);
  assert.equal(await gw.metric('atoll_gateway_outstanding_requests'), 0);
});

it('embeddings: the client asks for base64 and gets the same numbers', async () => {
  const r = await replica();
  const gw = await gateway({ embed: [r] });
  const answer = await gw.client().embeddings.create({ model: 'embed', input: ['a', 'b'] });
  assert.equal(r.seen[0].body.encoding_format, 'base64');
  assert.deepEqual(answer.data.map((d) => d.embedding), [VECTOR, VECTOR]);
  assert.deepEqual(answer.usage, { prompt_tokens: 2, total_tokens: 2 });
  assert.deepEqual((await gw.client().embeddings.create({ model: 'embed', input: 'a', encoding_format: 'float' })).data[0].embedding, VECTOR);
});

it('what is wrong with a request is an error object with its place', async () => {
  const r = await replica();
  const gw = await gateway({ chat: [r] });
  const c = gw.client();
  const post = async (body, headers = {}, path = 'chat/completions', method = 'POST') => {
    const res = await fetch(`${gw.url}/v1/${path}`, { method, headers: { 'Content-Type': 'application/json', ...headers }, body });
    assert.match(res.headers.get('content-type'), /^application\/json/);
    assert.match(res.headers.get('x-request-id'), /^\S+$/);
    const { error } = await res.json();
    assert.deepEqual(Object.keys(error), ['message', 'type', 'param', 'code']);
    return { status: res.status, ...error };
  };
  for (const [body, status, param, code, message] of [
    ['{"model":"chat",}', 400, null, 'invalid_json', /line 1, column 17/],
    ['', 400, null, 'invalid_json', /line 1, column 1/],
    ['{"model":"chat","model":"chat"}', 400, null, 'invalid_json', /line 1, column 17: .*twice/],
    ['{"messages":[]}', 400, 'model', null, /model/],
    ['{"model":7}', 400, 'model', null, /string/],
    ['{"model":"chat","stream":"yes"}', 400, 'stream', null, /true or false/],
    ['{"model":"gone"}', 404, 'model', 'model_not_found', /gone/],
  ]) {
    const e = await post(body);
    assert.deepEqual([e.status, e.param, e.code, e.type], [status, param, code, 'invalid_request_error'], body);
    assert.match(e.message, message, body);
  }
  assert.equal((await post('\x1f\x8b', { 'Content-Encoding': 'gzip' })).status, 415);
  assert.deepEqual([(await post('{}', {}, 'responses')).status, (await post(undefined, {}, 'chat/completions', 'GET')).status, (await post('{}', {}, 'models')).status], [404, 405, 405]);
  assert.equal(typeof (await (await fetch(`${gw.url}/v2/models/gone`)).json()).error, 'string'); // the other protocol's form
  const bad = await thrown(c.chat.completions.create({ messages: [] }));
  assert.ok(bad instanceof OpenAI.BadRequestError);
  assert.equal(bad.param, 'model');
  const gone = await thrown(c.chat.completions.create({ ...ASK, model: 'gone' }));
  assert.ok(gone instanceof OpenAI.NotFoundError);
  assert.match(gone.requestID, /^[0-9a-f]{16}$/);
  assert.ok((await thrown(c.responses.create({ model: 'chat', input: 'x' }))) instanceof OpenAI.NotFoundError);
  assert.equal(r.seen.length, 0); // none of it reached a replica
});

it('a token that the gateway does not know is an authentication error, and no request gets past it', async () => {
  const r = await replica();
  const gw = await gateway({ chat: [r] }, ['--auth-token-file', await fleet.file('tokens', 'secret\n')]);
  const error = await thrown(gw.client({ apiKey: 'wrong' }).chat.completions.create(ASK));
  assert.ok(error instanceof OpenAI.AuthenticationError);
  assert.equal(error.code, 'invalid_api_key');
  assert.ok((await thrown(gw.client({ apiKey: 'wrong' }).models.retrieve('chat'))) instanceof OpenAI.AuthenticationError);
  assert.equal(r.seen.length, 0);
  assert.equal((await gw.client().chat.completions.create(ASK)).choices[0].message.content, TOKENS.join(''));
});

it("a replica's own errors come through, and the client tries again when and as often as it should", async () => {
  const refuse = (status, headers = {}) => (req, res, body, self) => {
    if (self.seen.length > 2) return false;
    json(res, status, { error: { message: 'not now', type: 't', param: 'p', code: 'c' } }, headers);
    return true;
  };
  const tries = async (status, headers, options) => {
    const r = await replica(refuse(status, headers));
    const gw = await gateway({ chat: [r] });
    const began = performance.now();
    const result = await gw.client(options).chat.completions.create(ASK).catch((error) => error);
    return { result, counts: r.seen.map((s) => s.headers['x-stainless-retry-count']), ms: performance.now() - began, gw };
  };
  const limited = await tries(429, { 'retry-after-ms': '20', 'x-ratelimit-remaining-requests': '0' });
  assert.equal(limited.result.choices[0].message.content, TOKENS.join(''));
  assert.deepEqual(limited.counts, ['0', '1', '2']);
  assert.ok(limited.ms < 1000, `20 ms were asked for, twice; took ${limited.ms}`); // without them it waits 0.4 and 0.75 s
  assert.equal(await limited.gw.metric('atoll_gateway_client_retries_total{model="chat"}'), 2);
  const final = await tries(429, { 'x-should-retry': 'false', 'x-ratelimit-remaining-requests': '0' });
  assert.ok(final.result instanceof OpenAI.RateLimitError);
  assert.deepEqual([final.counts, final.result.code, final.result.headers.get('x-ratelimit-remaining-requests')], [['0'], 'c', '0']);
  for (const [status, type] of [[400, OpenAI.BadRequestError], [403, OpenAI.PermissionDeniedError], [422, OpenAI.UnprocessableEntityError]]) {
    const once = await tries(status);
    assert.ok(once.result instanceof type);
    assert.deepEqual([once.counts, once.result.param], [['0'], 'p'], `${status}`);
  }
  const down = await tries(503, {}, { maxRetries: 0 });
  assert.ok(down.result instanceof OpenAI.InternalServerError);
  assert.equal(down.result.status, 503);
});

it('503 and a refused connection go to another replica; when all were asked the client is told not to try again', async () => {
  const busy = (req, res) => (json(res, 503, { error: { message: 'full', type: 'server_error', param: null, code: null } }), true);
  const [full, good] = [await replica(busy), await replica()];
  const gw = await gateway({ chat: [full, good] });
  for (let i = 0; i < 4; i++) assert.ok(await gw.client({ maxRetries: 0 }).chat.completions.create(ASK));
  assert.equal(good.seen.length, 4);
  assert.ok(full.seen.length > 0);
  const [a, b] = [await replica(busy), await replica(busy)];
  const none = await gateway({ chat: [a, b] });
  const error = await thrown(none.client().chat.completions.create(ASK));
  assert.deepEqual([error.status, error.headers.get('x-should-retry'), a.seen.length, b.seen.length], [503, 'false', 1, 1]);
  await a.stop();
  await b.stop();
  const lost = await thrown(none.client().chat.completions.create(ASK));
  assert.deepEqual([lost.status, lost.type, lost.headers.get('x-should-retry')], [503, 'server_error', 'false']);
  assert.ok(Number(lost.headers.get('retry-after-ms')) <= 1000);
  assert.equal(await none.metric('atoll_gateway_client_retries_total{model="chat"}'), 0);
  const empty = await gateway({ chat: [] });
  const waits = await thrown(empty.client({ maxRetries: 1 }).chat.completions.create(ASK));
  assert.deepEqual([waits.status, waits.headers.get('x-should-retry')], [503, null]); // a replica may come
  assert.equal(await empty.metric('atoll_gateway_client_retries_total{model="chat"}'), 1);
});

it('a request that a replica may have begun is not sent to another one; a stream that breaks off looks broken', async () => {
  const dies = (req, res, body) => {
    if (body.stream) {
      res.writeHead(200, { 'Content-Type': 'text/event-stream' });
      res.write(event([...pieces(body, true)][0]), () => res.destroy());
    } else {
      res.destroy();
    }
    return true;
  };
  const [a, b] = [await replica(dies), await replica(dies)];
  const gw = await gateway({ chat: [a, b] });
  const lost = await thrown(gw.client({ maxRetries: 0 }).chat.completions.create(ASK));
  assert.deepEqual([lost.status, lost.headers.get('x-should-retry'), a.seen.length + b.seen.length], [502, null, 1]);
  const broken = await thrown(
    (async () => {
      for await (const _ of await gw.client().chat.completions.create({ ...ASK, stream: true }));
    })(),
  );
  assert.match(String(broken), /its replica broke off/); // told within the stream
  assert.equal(a.seen.length + b.seen.length, 2);
});

it('embeddings are safe to ask for again: a replica that breaks off costs no answer', async () => {
  const dies = (req, res) => (res.destroy(), true);
  const [bad, good] = [await replica(dies), await replica()];
  const gw = await gateway({ embed: [bad, good] });
  for (let i = 0; i < 2; i++) assert.deepEqual((await gw.client({ maxRetries: 0 }).embeddings.create({ model: 'embed', input: 'a' })).data[0].embedding, VECTOR);
  assert.ok(bad.seen.length > 0);
  const worse = await gateway({ embed: [await replica(dies), bad] });
  const lost = await thrown(worse.client().embeddings.create({ model: 'embed', input: 'a' }));
  assert.deepEqual([lost.status, lost.headers.get('x-should-retry')], [502, 'false']);
});

it('an error in the middle of a stream and a compressed answer are passed on as they are', async () => {
  const r = await replica((req, res, body) => {
    if (body.stream) {
      res.writeHead(200, { 'Content-Type': 'text/event-stream' });
      res.write(event([...pieces(body, true)][1]));
      res.end(event({ error: { message: 'out of memory', type: 'server_error', param: null, code: 'oom' } }));
    } else {
      const text = gzipSync(JSON.stringify({ id: 'c-1', object: 'chat.completion', choices: [], usage: USAGE }));
      res.writeHead(200, { 'Content-Type': 'application/json', 'Content-Encoding': 'gzip', 'Content-Length': text.length }).end(text);
    }
    return true;
  });
  const gw = await gateway({ chat: [r] });
  let text = '';
  const error = await thrown(
    (async () => {
      for await (const chunk of await gw.client().chat.completions.create({ ...ASK, stream: true })) text += chunk.choices[0].delta.content;
    })(),
  );
  assert.ok(error instanceof OpenAI.APIError);
  assert.deepEqual([error.code, error.message, text, r.seen.length], ['oom', 'out of memory', TOKENS[0], 1]);
  assert.match(r.seen[0].headers['accept-encoding'], /gzip/);
  assert.deepEqual((await gw.client().chat.completions.create(ASK)).usage, USAGE);
});

it('streams over HTTP/2 share a connection; one that is given up stops its replica and no other', async () => {
  const r = await replica(async (req, res, body) => {
    if (body.user !== 'endless') return false;
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    res.write(event([...pieces(body, true)][0]));
    return true;
  });
  const gw = await gateway({ chat: [r] });
  const session = http2.connect(gw.url);
  const start = (user) => session.request({ ':method': 'POST', ':path': '/v1/chat/completions', 'content-type': 'application/json' }).end(JSON.stringify({ ...ASK, user, stream: true }));
  const endless = start('endless');
  await once(endless, 'data');
  endless.close(http2.constants.NGHTTP2_CANCEL);
  await eventually('the replica sees the end', () => r.cut === 1);
  const whole = start('u1');
  const [headers] = await once(whole, 'response');
  assert.deepEqual([headers[':status'], headers['content-type']], [200, 'text/event-stream']);
  const chunks = [];
  for await (const c of whole) chunks.push(c);
  const text = Buffer.concat(chunks).toString();
  assert.ok(text.startsWith(': keepalive\n\n'));
  assert.ok(text.endsWith('data: [DONE]\n\n'));
  assert.equal(r.cut, 1);
  await new Promise((done) => session.close(done));
});

it('of two replicas one dies between requests: every request is answered', async () => {
  const [a, b] = [await replica(), await replica()];
  const gw = await gateway({ chat: [a, b] });
  const c = gw.client({ maxRetries: 0 });
  for (let i = 0; i < 4; i++) await c.chat.completions.create(ASK);
  assert.ok(a.seen.length > 0);
  assert.ok(b.seen.length > 0);
  await a.stop();
  const had = b.seen.length;
  for (let i = 0; i < 8; i++) assert.equal((await c.chat.completions.create(ASK)).choices[0].message.content, TOKENS.join(''));
  assert.equal(b.seen.length, had + 8);
});

it('fifty streams at once, each whole and its own', async () => {
  const r = await replica();
  const gw = await gateway({ chat: [r] });
  const c = gw.client();
  const texts = await Promise.all(
    Array.from({ length: 50 }, async (_, i) => {
      let text = '';
      for await (const chunk of await c.chat.completions.create({ ...ASK, user: `u${i}`, stream: true })) text += chunk.choices[0].delta.content ?? '';
      return text;
    }),
  );
  assert.deepEqual(texts, Array.from({ length: 50 }, (_, i) => `${TOKENS.join('')}u${i}`));
  assert.equal(r.seen.length, 50);
  assert.equal(await gw.metric('atoll_gateway_requests_total{model="chat",site="here",code="200"}'), 50);
  assert.equal(await gw.metric('atoll_gateway_outstanding_requests'), 0);
});
