// `atoll runner llm` on the real engine with a tiny model of random weights (tools/make-test-models), spoken to by OpenAI's own
// client: answers, streams, sampling, batching, the cache, and what users and machines get wrong.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, readFile, rm, rmdir, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import OpenAI from 'openai';
import { ATOLL, eventually, Fleet, PLAIN, ROOT, run } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const MODEL = path.join(ROOT, 'tests/models/tiny-llama.gguf');
const LIBRARY = process.env.ATOLL_LLAMA ?? path.join(ROOT, 'third_party/llama/lib');
const skip = existsSync(path.join(LIBRARY, 'libllama.v0.5.0.so')) ? false : 'libllama is not here: tools/fetch-third-party llama';
const fleet = new Fleet();
const it = (name, fn) => fleet.it(name, fn, { skip });
const model = 'tiny-llama';
const chat = (content, more = {}) => ({ model, messages: [{ role: 'user', content }], temperature: 0, max_tokens: 24, ...more });
const text = (prompt, more = {}) => ({ model, prompt, temperature: 0, max_tokens: 24, ...more });

async function runner(...args) {
  const proc = fleet.start('atoll runner', ['runner', 'llm', '--model', MODEL, ...args]);
  const [, url] = await proc.line(/^ready runner (\S+)$/m);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const metric = async (name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await (await fetch(`${url}/metrics`)).text())?.[1]);
  const until = async (name, good) => {
    for (let n = 0; ; n++) {
      const value = await metric(name);
      if (good(value)) return value;
      assert.ok(n < 2000, `${name} stays at ${value}`);
    }
  };
  return { proc, url, client, metric, until };
}

const shared = await (async () => (skip ? null : runner('--sequences', '8')))();

it('models, health and metadata answer', async () => {
  const { url, client } = shared;
  const list = await client.models.list();
  assert.deepEqual(list.data.map((m) => m.id), [model]);
  assert.equal((await client.models.retrieve(model)).object, 'model');
  for (const p of ['/v2/health/live', '/v2/health/ready', '/health', '/v2', `/v2/models/${model}/ready`]) assert.equal((await fetch(url + p)).status, 200, p);
  assert.equal((await (await fetch(`${url}/v2/models/${model}`)).json()).platform, 'llama.cpp_gguf');
  const checked = await run('promtool', ['check', 'metrics'], { input: await (await fetch(`${url}/metrics`)).text() });
  assert.equal(checked.code, 0, checked.out + checked.err);
});

it('a chat is answered, whole and as a stream, with the same text and usage', async () => {
  const { client } = shared;
  const whole = await client.chat.completions.create(chat('hello'));
  assert.equal(whole.choices[0].message.role, 'assistant');
  assert.equal(whole.choices[0].finish_reason, 'length');
  assert.ok(whole.choices[0].message.content.length >= 24);
  assert.equal(whole.usage.completion_tokens, 24);
  let streamed = '';
  let usage;
  let role;
  const reasons = [];
  for await (const chunk of await client.chat.completions.create(chat('hello', { stream: true, stream_options: { include_usage: true } }))) {
    role ??= chunk.choices[0]?.delta.role;
    streamed += chunk.choices[0]?.delta.content ?? '';
    if (chunk.choices[0]?.finish_reason) reasons.push(chunk.choices[0].finish_reason);
    usage = chunk.usage ?? usage;
  }
  assert.equal(role, 'assistant');
  assert.equal(streamed, whole.choices[0].message.content);
  assert.deepEqual(reasons, ['length']);
  assert.equal(usage.total_tokens, whole.usage.total_tokens);
});

it('batched answers are those that each gets alone', async () => {
  const alone = await runner('--sequences', '1', '--prefix-cache', 'off');
  const { client, metric } = shared;
  const prompts = Array.from({ length: 24 }, (_, n) => `${'the quick brown fox '.repeat(n % 5)}number ${n}`);
  const together = await Promise.all(prompts.map((p, n) => client.completions.create(text(p, { max_tokens: 8 + 2 * n }))));
  for (let n = 0; n < prompts.length; n++) {
    const one = await alone.client.completions.create(text(prompts[n], { max_tokens: 8 + 2 * n }));
    assert.equal(together[n].choices[0].text, one.choices[0].text, prompts[n]);
  }
  assert.ok((await metric('atoll_llm_step_tokens_total')) / (await metric('atoll_llm_steps_total')) > 1.5);
});

it('a shared prefix is computed once, and changes no answer', async () => {
  const { client } = shared;
  const prefix = 'you are a helpful machine that knows the licence by heart. '.repeat(3);
  const first = await client.completions.create(text(`${prefix}one`));
  const again = await client.completions.create(text(`${prefix}one`));
  const other = await client.completions.create(text(`${prefix}two`));
  assert.equal(again.choices[0].text, first.choices[0].text);
  assert.equal(again.usage.prompt_tokens_details.cached_tokens, again.usage.prompt_tokens - 1);
  assert.ok(other.usage.prompt_tokens_details.cached_tokens >= other.usage.prompt_tokens - 4);
  const fresh = await runner('--prefix-cache', 'off');
  const plain = await fresh.client.completions.create(text(`${prefix}two`));
  assert.equal(plain.choices[0].text, other.choices[0].text);
  assert.equal(plain.usage.prompt_tokens_details.cached_tokens, 0);
  for (const cache of ['split', 'shared']) { // and from one that is being computed
    const { client: busy } = await runner('--sequences', '4', '--cache', cache);
    const long = await busy.completions.create(text(`${prefix}long`, { stream: true, max_tokens: 300 }));
    await long[Symbol.asyncIterator]().next();
    const beside = await Promise.all(['two', 'two'].map((p) => busy.completions.create(text(`${prefix}${p}`))));
    for (const answer of beside) {
      assert.equal(answer.choices[0].text, plain.choices[0].text, cache);
      assert.ok(answer.usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens - 5, cache);
    }
    long.controller.abort();
  }
});

it('a seed repeats an answer, and temperature, top_k, penalties and biases do what they say', async () => {
  const { client } = shared;
  const ask = async (more) => (await client.completions.create(text('go on', more))).choices[0].text;
  const greedy = await ask({});
  assert.equal(await ask({ temperature: 1, seed: 5 }), await ask({ temperature: 1, seed: 5 }));
  assert.notEqual(await ask({ temperature: 1, seed: 5 }), await ask({ temperature: 1, seed: 6 }));
  assert.equal(await ask({ temperature: 1, top_k: 1 }), greedy);
  assert.equal(await ask({ temperature: 1, top_p: 0.000001 }), greedy);
  assert.equal(await ask({ temperature: 1, min_p: 1 }), greedy);
  assert.equal(await ask({ logit_bias: { 326: 100 } }), String.fromCharCode(32 + 326 - 261).repeat(24)); // one token a printable character, from 261 on
  const varied = await client.completions.create(text('go on', { max_tokens: 20, presence_penalty: 2, frequency_penalty: 2, repeat_penalty: 10, logprobs: 0 }));
  assert.equal(new Set(varied.choices[0].logprobs.tokens).size, 20); // no token twice
});

it('the end of a turn, stop words and max_tokens end an answer, and no part of a stop word is told', async () => {
  const { client } = shared;
  const ended = await client.chat.completions.create(chat('x', { logit_bias: { 4: 100 } }));
  assert.deepEqual([ended.choices[0].finish_reason, ended.choices[0].message.content, ended.usage.completion_tokens], ['stop', '', 1]);
  const full = (await client.completions.create(text('stop here', { max_tokens: 40 }))).choices[0].text;
  const word = full.slice(10, 14);
  const at = full.indexOf(word);
  for (const stream of [false, true]) {
    const answer = await client.completions.create(text('stop here', { max_tokens: 40, stop: ['never', word], stream }));
    let got = '';
    let reason;
    if (stream) {
      for await (const chunk of answer) {
        got += chunk.choices[0].text;
        reason ??= chunk.choices[0].finish_reason;
        assert.ok(full.startsWith(got) && got.length <= at, got);
      }
    } else {
      got = answer.choices[0].text;
      reason = answer.choices[0].finish_reason;
    }
    assert.equal(got, full.slice(0, at));
    assert.equal(reason, 'stop');
  }
});

it('characters of several tokens come whole', async () => {
  const { client } = shared;
  const bytes = [0xc3, 0xa4]; // one character, a token a byte: forced by biases in turn through penalties
  const pieces = [];
  for await (const chunk of await client.completions.create(text('x', { max_tokens: 6, stream: true, logit_bias: { [5 + bytes[0]]: 100, [5 + bytes[1]]: 99.9 }, frequency_penalty: 2 }))) pieces.push(chunk.choices[0].text);
  assert.ok(pieces.join('').includes('ä'), JSON.stringify(pieces));
});

it('log probabilities are told as asked', async () => {
  const { client } = shared;
  const answer = await client.chat.completions.create(chat('x', { logprobs: true, top_logprobs: 3, max_tokens: 4 }));
  const { content } = answer.choices[0].logprobs;
  assert.equal(content.map((c) => c.token).join(''), answer.choices[0].message.content);
  for (const c of content) {
    assert.equal(c.top_logprobs.length, 3);
    assert.equal(c.top_logprobs[0].token, c.token);
    assert.ok(c.logprob <= 0 && c.top_logprobs[1].logprob <= c.logprob);
  }
  const old = await client.completions.create(text('x', { logprobs: 2, max_tokens: 3, echo: true }));
  assert.equal(old.choices[0].logprobs.tokens.length, 3);
  assert.ok(old.choices[0].text.startsWith('x'));
});

it('several prompts and several answers keep their order', async () => {
  const { client } = shared;
  const answer = await client.completions.create(text(['aa', 'bb', [1, 300, 301]], { n: 2, max_tokens: 5 }));
  assert.deepEqual(answer.choices.map((c) => c.index), [0, 1, 2, 3, 4, 5]);
  assert.equal(answer.choices[0].text, answer.choices[1].text);
  assert.equal(answer.choices[0].text, (await client.completions.create(text('aa', { max_tokens: 5 }))).choices[0].text);
  const warm = await client.chat.completions.create(chat('x', { n: 3, temperature: 1, seed: 3 }));
  assert.equal(new Set(warm.choices.map((c) => c.message.content)).size, 3);
});

it('embeddings are of length one, the same for the same text, whatever comes along', async () => {
  const { client } = shared;
  const both = await client.embeddings.create({ model, input: ['one text', 'another, longer text'] });
  const one = await client.embeddings.create({ model, input: 'one text', encoding_format: 'float' });
  assert.equal(both.data.length, 2);
  assert.equal(one.data[0].embedding.length, 64);
  assert.ok(Math.abs(one.data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-4);
  one.data[0].embedding.forEach((x, i) => assert.ok(Math.abs(x - both.data[0].embedding[i]) < 1e-4));
  assert.equal((await client.embeddings.create({ model, input: 'x', dimensions: 8 })).data[0].embedding.length, 8);
});

it('what is wrong is told in OpenAI\'s form, by parameter', async () => {
  const { client, url } = shared;
  const refused = async (promise, status, code, param) => {
    await assert.rejects(promise, (e) => {
      assert.equal(e.status, status, String(e));
      if (code) assert.equal(e.code, code);
      if (param) assert.equal(e.param, param);
      return true;
    });
  };
  await refused(client.chat.completions.create(chat('x', { model: 'gpt-9' })), 404, 'model_not_found', 'model');
  await refused(client.completions.create(text('word '.repeat(600))), 400, 'context_length_exceeded', 'prompt');
  await refused(client.chat.completions.create(chat('x'.repeat(2_000_000))), 400, 'context_length_exceeded', 'messages');
  await refused(client.embeddings.create({ model, input: 'word '.repeat(600) }), 400, 'context_length_exceeded', 'input');
  await refused(client.chat.completions.create(chat('x', { temperature: 3 })), 400, 'invalid_value', 'temperature');
  await refused(client.chat.completions.create(chat('x', { n: 0 })), 400, 'invalid_value', 'n');
  await refused(client.chat.completions.create(chat('x', { stop: [''] })), 400, 'invalid_value', 'stop');
  await refused(client.chat.completions.create(chat('x', { logit_bias: { 5000: 1 } })), 400, null, 'logit_bias');
  await refused(client.chat.completions.create(chat('x', { tools: [{ type: 'function', function: { name: 'f' } }] })), 400, 'unsupported_parameter', 'tools');
  await refused(client.completions.create(text([9999])), 400, 'invalid_value', 'prompt');
  await refused(client.completions.create(text('')), 400).catch(async () => {}); // an empty prompt is the beginning of a text
  for (const body of ['', '{', '[]', '{"model":"tiny-llama"}', '{"model":"tiny-llama","messages":[]}', '{"model":"tiny-llama","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}']) {
    const answer = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body });
    assert.equal(answer.status, 400, body);
    assert.equal((await answer.json()).error.type, 'invalid_request_error');
  }
  assert.equal((await fetch(`${url}/v1/files`)).status, 404);
  assert.equal((await fetch(`${url}/v1/completions`)).status, 405);
  const long = await client.completions.create(text('x', { max_tokens: 100000 }));
  assert.equal(long.choices[0].finish_reason, 'length');
  assert.ok(long.usage.total_tokens <= 512);
});

it('a client that goes away ends its sequence within a step', async () => {
  const { client, metric, until } = await runner('--sequences', '2');
  const stream = await client.chat.completions.create(chat('x', { stream: true, max_tokens: 480 }));
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break; // closes the connection
  const whole = new AbortController();
  const waits = client.completions.create(text('y', { max_tokens: 500 }), { signal: whole.signal }).catch((e) => e.name);
  whole.abort();
  await waits;
  await until('atoll_llm_running', (n) => n === 0);
  const steps = await metric('atoll_llm_answer_tokens_total');
  assert.ok(steps < 960, `${steps} tokens were computed`); // to the step: src/runners/llm_engine_test.c
  assert.ok((await metric('atoll_llm_cancelled_total')) >= 1);
  assert.equal(await metric('atoll_llm_waiting'), 0);
  assert.equal((await client.completions.create(text('z', { max_tokens: 2 }))).usage.completion_tokens, 2);
});

it('when the cache is full, sequences give way and go on later: all answers are whole and right', async () => {
  const roomy = shared;
  const tight = await runner('--sequences', '6', '--context', '256', '--step-tokens', '64');
  const prompts = Array.from({ length: 6 }, (_, n) => `${n} `.repeat(15));
  const ask = (c) => Promise.all(prompts.map((p) => c.completions.create(text(p, { max_tokens: 150 }))));
  const got = await ask(tight.client);
  const want = await ask(roomy.client);
  got.forEach((answer, n) => {
    assert.equal(answer.usage.completion_tokens, 150);
    assert.equal(answer.choices[0].text, want[n].choices[0].text);
  });
  assert.ok((await tight.metric('atoll_llm_preemptions_total')) > 0);
});

it('one greedy user does not keep others waiting', async () => {
  const { client } = await runner('--sequences', '1');
  const order = [];
  const ask = (user, n) => client.completions.create(text(`${user} ${n}`, { user, max_tokens: 60 })).then(() => order.push(user));
  const all = Array.from({ length: 8 }, (_, n) => ask('greedy', n));
  all.push(ask('modest', 0));
  await Promise.all(all);
  assert.ok(order.indexOf('modest') <= 3, order.join());
});

it('a full queue answers 503, and what was in it is answered', async () => {
  const { client } = await runner('--sequences', '1', '--batching', '{queue: {maxSize: 3}}');
  const answers = await Promise.allSettled(Array.from({ length: 6 }, () => client.completions.create(text('x', { max_tokens: 200 }))));
  assert.equal(answers.filter((a) => a.status === 'fulfilled').length, 3);
  assert.ok(answers.filter((a) => a.status === 'rejected').every((a) => a.reason.status === 503));
});

it('SIGTERM lets what is in flight end', async () => {
  const { client, proc } = await runner();
  const stream = await client.completions.create(text('x', { stream: true, max_tokens: 300 }));
  let tokens = 0;
  let ended;
  for await (const chunk of stream) {
    if (tokens++ === 0) ended = proc.stop();
    if (chunk.choices[0].finish_reason) assert.equal(chunk.choices[0].finish_reason, 'length');
  }
  assert.deepEqual(await ended, { code: 0, signal: null });
});

it('damaged, cut-off, empty, huge and foreign files end with status 65 and one sentence', async () => {
  const dir = await fleet.dir('atoll-model');
  const whole = await readFile(MODEL);
  const damaged = (at, ...bytes) => {
    const copy = Buffer.from(whole);
    Buffer.from(bytes).copy(copy, at);
    return copy;
  };
  const cases = {
    empty: Buffer.alloc(0),
    text: Buffer.from('not a model\n'),
    'cut-in-head': whole.subarray(0, 3000),
    'cut-in-tensors': whole.subarray(0, 300_000),
    'old-version': damaged(4, 1, 0, 0, 0),
    'many-tensors': damaged(8, 255, 255, 255, 255, 255, 255, 255, 127),
    'many-keys': damaged(16, 255, 255, 255, 255, 255),
    noise: Buffer.from(whole).fill(0xa5, 200, 2000),
    'other-architecture': Buffer.from(whole.toString('latin1').replace('\x05\0\0\0\0\0\0\0llama', '\x05\0\0\0\0\0\0\0zlama'), 'latin1'),
    'no-tensor': Buffer.from(whole.toString('latin1').replace('output_norm.weight', 'output_mist.weight'), 'latin1'),
  };
  for (const [name, data] of Object.entries(cases)) {
    const file = path.join(dir, `${name}.gguf`);
    await writeFile(file, data);
    const done = await run(ATOLL, ['runner', 'llm', '--model', file]);
    assert.equal(done.code, 65, `${name}: ${done.code} ${done.err}`);
    assert.match(done.err, new RegExp(`atoll runner llm: .*${name}.*\\n.*cannot be served`, 's'), name);
  }
  const huge = path.join(dir, 'huge.gguf');
  await writeFile(huge, whole.subarray(0, 24)); // a head that is never closed, then nothing for 3 TB
  await truncate(huge, 3 * 2 ** 40).catch(() => truncate(huge, 3 * 2 ** 30));
  assert.equal((await run(ATOLL, ['runner', 'llm', '--model', huge])).code, 65);
});

it('a missing file, a bad option and a missing library end with their own status', async () => {
  const start = (args, env) => run(ATOLL, ['runner', 'llm', ...args], { env });
  assert.equal((await start(['--model', '/nonexistent.gguf'])).code, 66);
  for (const args of [['--modle', MODEL], ['--model', MODEL, '--sequences', '0'], ['--model', MODEL, '--cache-type', 'q1'], ['--model', MODEL, '--cache', 'both'], ['--model', MODEL, '--batching', '{maxSequences: many}']]) {
    assert.equal((await start(args)).code, 2, args.join(' '));
  }
  const done = await start(['--model', MODEL], { ATOLL_LLAMA: '/nonexistent' });
  assert.equal(done.code, 69);
  assert.match(done.err, /run `make`/);
});

fleet.it('a cache that memory has no room for ends with a status of its own, and says what to ask less of', async () => {
  const done = await run('bash', ['-c', `ulimit -v 1500000; exec ${PLAIN} runner llm --model ${MODEL} --cache shared --context 16777216`]);
  assert.equal(done.code, 75, done.err);
  assert.match(done.err, /16777216 tokens cannot be had.*--context/s);
}, { skip: skip || (PLAIN ? false : 'no build without the address sanitizer, which reserves more than any limit') });

fleet.it('the cache is split where memory allows, and an instance with little of it gets a shared one', async (t) => {
  const roomy = await runner('--sequences', '64');
  assert.equal(await roomy.metric('atoll_llm_cache_tokens_max'), 64 * 512);
  const v1 = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes');
  const group = `/sys/fs/cgroup/${v1 ? 'memory/' : ''}atoll-llm-test-${process.pid}`;
  const limit = path.join(group, v1 ? 'memory.limit_in_bytes' : 'memory.max');
  try {
    await mkdir(group);
    await writeFile(limit, `${56 << 20}`);
  } catch {
    await rmdir(group).catch(() => {});
    return t.skip('control groups of memory cannot be made here');
  }
  try {
    const proc = fleet.start('small', ['-c', `echo $$ > ${group}/cgroup.procs && exec "$0" "$@"`, PLAIN, 'runner', 'llm', '--model', MODEL, '--sequences', '64'], { command: '/bin/bash' });
    const [, url] = await proc.line(/^ready runner (\S+)$/m);
    assert.match(await (await fetch(`${url}/metrics`)).text(), /^atoll_llm_cache_tokens_max 512$/m);
    await proc.kill();
  } finally {
    await rmdir(group);
  }
  return undefined;
}, { skip: skip || (PLAIN ? false : 'no build without the address sanitizer, which takes more than the limit') });

// The engine is C++; what it throws where nobody catches it would end the process by abort, without a word of ours.
async function shim() {
  const dir = await fleet.dir('atoll-shim');
  const library = path.join(dir, 'shim.so');
  const made = await run('gcc', ['-shared', '-fPIC', '-fexceptions', '-O1', '-o', library, path.join(ROOT, 'tests/e2e/lib/no-memory.c')]);
  assert.equal(made.code, 0, made.err);
  await chmod(dir, 0o755); // for instances of another user
  return { library, trigger: path.join(dir, 'now') };
}

const noShim = skip || (PLAIN ? false : 'no build without the address sanitizer, which has an operator new of its own');
for (const [what, symbol, status, words] of [
  ['memory', '_ZSt17__throw_bad_allocv', 75, /the engine ran out of memory in the midst of its work \(St9bad_alloc\).*--context/],
  ['anything else', '_ZSt20__throw_domain_errorPKc', 70, /the engine gave up in the midst of its work: it threw St12domain_error/],
]) {
  fleet.it(`an engine that throws for want of ${what} ends with a sentence of ours and a status of its own`, async () => {
    const { library, trigger } = await shim();
    const proc = fleet.start('atoll runner', ['runner', 'llm', '--model', MODEL], { command: PLAIN, env: { LD_PRELOAD: library, ATOLL_TEST_TRIGGER: trigger, ATOLL_TEST_THROWS: symbol } });
    const [, url] = await proc.line(/^ready runner (\S+)$/m);
    const ask = () => fetch(`${url}/v1/completions`, { method: 'POST', body: JSON.stringify(text('x', { max_tokens: 2 })) });
    assert.equal((await ask()).status, 200);
    await writeFile(trigger, '');
    await assert.rejects(ask()); // its connection ends with the process
    assert.deepEqual(await proc.exited, { code: status, signal: null });
    assert.match(proc.err.trim().split('\n').at(-1), words);
  }, { skip: noShim });
}

fleet.it('the Instance of such a runner tells the sentence, its client gets an error, and it serves again', async () => {
  const { library, trigger } = await shim();
  const state = await fleet.dir('atoll-dev');
  const models = await fleet.dir('atoll-models');
  await copyFile(MODEL, path.join(models, 'tiny.gguf'));
  const dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--models', models, '--site', 'here'], { command: PLAIN });
  await dev.line(/^ready dev$/m);
  const admin = await credentials(path.join(state, 'admin.kubeconfig'));
  const gateway = (await readFile(path.join(state, 'gateway'), 'utf8')).trim();
  const Authorization = `Bearer ${(await readFile(path.join(state, 'inference.token'), 'utf8')).trim()}`;
  const env = [{ name: 'LD_PRELOAD', value: library }, { name: 'ATOLL_TEST_TRIGGER', value: trigger }];
  const spec = { replicas: 1, template: { spec: { resources: { cpu: '100m', memory: '512Mi' }, runner: 'llm', model: { name: 'tiny', uri: 'file:tiny.gguf', format: 'gguf' }, env } } };
  const made = await call(admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', { apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'tiny' }, spec });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  const ask = () => fetch(`${gateway}/v1/completions`, { method: 'POST', headers: { Authorization }, body: JSON.stringify({ model: 'tiny', prompt: 'x', max_tokens: 2 }) });
  await eventually('it serves', async () => (await ask()).status === 200, { timeoutMs: 60_000 });
  await writeFile(trigger, '');
  assert.equal((await ask()).status, 502);
  const status = async () => (await call(admin, 'GET', '/apis/atoll.dev/v1/instances')).body.items[0].status;
  await eventually('the status says why', async () => {
    const { reason, message } = await status();
    return reason === 'NotEnoughMemory' && /exited with 75: .*the engine ran out of memory in the midst of its work/.test(message);
  });
  await rm(trigger);
  await eventually('it serves again', async () => (await ask()).status === 200, { timeoutMs: 60_000 });
}, { skip: noShim });
