// Models served in `atoll dev`, through its gateway: a language model by our runner, batches of an ONNX model as the Deployment
// says, and a server that is none of ours.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { copyFile, readFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import OpenAI from 'openai';
import { eventually, Fleet, ROOT } from './lib/atoll.mjs';
import { condition, fetchFrom, processesWith } from './lib/cluster.mjs';
import { call, credentials } from './lib/rest.mjs';

const LIBRARY = process.env.ATOLL_LLAMA ?? path.join(ROOT, 'third_party/llama/lib');
const llama = existsSync(path.join(LIBRARY, 'libllama.v0.5.0.so')) ? false : 'libllama is not here: tools/fetch-third-party llama';
const LLAMA_SERVER = [process.env.ATOLL_LLAMA_SERVER, path.join(ROOT, 'third_party/llama-server/llama-server')].find((file) => file && existsSync(file));
const fleet = new Fleet();
const it = (name, fn, skip = false) => fleet.it(name, fn, { skip });
let admin;
let state;
let gateway;
let client;

before(async () => {
  state = await fleet.dir('atoll-dev');
  const models = await fleet.dir('atoll-models');
  for (const name of ['tiny-llama.gguf', 'double.onnx']) await copyFile(path.join(ROOT, 'tests/models', name), path.join(models, name));
  const dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--models', models, '--site', 'here']);
  await dev.line(/^ready dev$/m);
  admin = await credentials(path.join(state, 'admin.kubeconfig'));
  gateway = (await readFile(path.join(state, 'gateway'), 'utf8')).trim().replace('http://', '');
  const apiKey = (await readFile(path.join(state, 'inference.token'), 'utf8')).trim();
  client = new OpenAI({ baseURL: `http://${gateway}/v1`, apiKey, maxRetries: 0 });
});

async function serve(name, spec) {
  const answer = await call(admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', { apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name }, spec: { replicas: 1, template: { spec: { resources: { cpu: '100m', memory: '512Mi' }, ...spec } } } });
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  await eventually(`${name} is ready`, async () => condition((await call(admin, 'GET', `/apis/atoll.dev/v1/namespaces/default/deployments/${name}`)).body, 'Ready') === 'True', { timeoutMs: 60_000 });
  return (await call(admin, 'GET', '/apis/atoll.dev/v1/instances')).body.items.find((i) => i.metadata.ownerReferences?.[0]?.name === name);
}

const ask = (model, content, more = {}) => ({ model, messages: [{ role: 'user', content }], temperature: 0, max_tokens: 16, ...more });
const infer = (model, body) => fetchFrom(gateway, `/v2/models/${model}/infer`, { method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${client.apiKey}` } });

it('a GGUF model chats through the gateway, streams, and is cut off when the client leaves', async () => {
  const instance = await serve('tiny', { runner: 'llm', model: { name: 'tiny', uri: 'file:tiny-llama.gguf', format: 'gguf' }, batching: { maxSequences: 3, contextTokens: 400 } });
  await eventually('the gateway has learnt the route', () => client.chat.completions.create(ask('tiny', 'hi')).then(() => true, () => false));
  const whole = await client.chat.completions.create(ask('tiny', 'hello'));
  let streamed = '';
  for await (const chunk of await client.chat.completions.create(ask('tiny', 'hello', { stream: true }))) streamed += chunk.choices[0].delta.content ?? '';
  assert.equal(streamed, whole.choices[0].message.content);
  assert.equal(whole.usage.completion_tokens, 16);
  const metrics = async () => (await fetchFrom(instance.status.endpoint, '/metrics')).body;
  assert.match(await metrics(), /^atoll_llm_cache_tokens_max 400$/m); // as the Deployment says
  for await (const chunk of await client.chat.completions.create(ask('tiny', 'go on', { stream: true, max_tokens: 380 }))) if (chunk.choices[0].delta.content) break;
  await eventually('nothing computes any more', async () => /^atoll_llm_running 0$/m.test(await metrics()));
  await assert.rejects(client.chat.completions.create(ask('tiny', 'word '.repeat(500))), (e) => e.status === 400 && e.code === 'context_length_exceeded');
}, llama);

it('a runner that is killed under load is started again, and nothing that was cut looks whole', async () => {
  const one = async () => {
    let reason;
    for await (const chunk of await client.chat.completions.create(ask('tiny', 'long', { stream: true, max_tokens: 300 }))) reason = chunk.choices[0].finish_reason ?? reason;
    assert.equal(reason, 'length'); // an end without one would be a cut that nobody sees
    return 'whole';
  };
  const load = Array.from({ length: 12 }, () => one().catch((e) => (e.code === 'ERR_ASSERTION' ? Promise.reject(e) : 'cut')));
  const mine = processesWith(state).filter((p) => p.args.includes('runner llm'));
  assert.equal(mine.length, 1);
  process.kill(mine[0].pid, 'SIGKILL');
  await Promise.all(load);
  await eventually('it serves again', () => one().then(() => true, () => false), { timeoutMs: 60_000 });
}, llama);

it('an ONNX model is batched as its Deployment says', async () => {
  const instance = await serve('double', { runner: 'onnx', model: { name: 'double', uri: 'file:double.onnx' }, batching: { maxBatchSize: 8, maxQueueDelay: '200ms', preferredBatchSizes: [4, 8] } });
  const body = (n) => ({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 1], data: [n] }] });
  await eventually('the gateway has learnt the route', async () => (await infer('double', body(0))).status === 200);
  const before_ = await (await fetch(`http://${instance.status.endpoint}/v2/models/double/stats`)).json();
  const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => infer('double', body(n))));
  answers.forEach((a, n) => assert.equal(JSON.parse(a.body).outputs[0].data[0], 2 * n));
  const after = await (await fetch(`http://${instance.status.endpoint}/v2/models/double/stats`)).json();
  assert.ok(after.model_stats[0].execution_count - before_.model_stats[0].execution_count <= 4);
  assert.deepEqual((await (await fetch(`http://${instance.status.endpoint}/v2/models/double/config`)).json()).dynamic_batching.preferred_batch_size, [4, 8]);
});

it('a server that is none of ours works unchanged, by both protocols', async () => {
  await serve('echo', { command: [process.execPath, path.join(ROOT, 'tests/e2e/foreign-server.mjs')], user: process.getuid() || undefined, model: undefined, readinessProbe: { httpPath: '/v2/health/ready', period: '200ms' } });
  await eventually('the gateway has learnt the route', async () => (await infer('echo', { inputs: [{ name: 'x' }] })).status === 200);
  assert.equal((await client.chat.completions.create(ask('echo', 'as it came'))).choices[0].message.content, 'as it came');
  const words = [];
  for await (const chunk of await client.chat.completions.create(ask('echo', 'one two', { stream: true }))) words.push(chunk.choices[0].delta.content);
  assert.deepEqual(words, ['one', 'two']);
  const { body } = await infer('echo', { inputs: [{ name: 'x', datatype: 'FP32', shape: [1], data: [7] }] });
  assert.deepEqual(JSON.parse(body).outputs, [{ name: 'y', datatype: 'FP32', shape: [1], data: [7] }]);
});

it('llama.cpp\'s own server works unchanged', async () => {
  await serve('foreign', { command: [LLAMA_SERVER, '-m', path.join(ROOT, 'tests/models/tiny-llama.gguf'), '--host', '127.0.0.1', '--port', '$(PORT)', '--no-webui', '--alias', 'foreign'], readinessProbe: { httpPath: '/health', period: '200ms' } });
  await eventually('the gateway has learnt the route', () => client.chat.completions.create(ask('foreign', 'hi')).then(() => true, () => false));
  const whole = await client.chat.completions.create(ask('foreign', 'hello'));
  assert.equal(whole.usage.completion_tokens, 16);
  // It closes its connections behind streams without saying so; nobody is to notice, however quickly the next request follows.
  const chain = async () => {
    for (let n = 0; n < 5; n++) {
      let streamed = '';
      for await (const chunk of await client.chat.completions.create(ask('foreign', 'hello', { stream: true }))) streamed += chunk.choices[0]?.delta.content ?? '';
      assert.equal(streamed, whole.choices[0].message.content);
    }
  };
  await Promise.all(Array.from({ length: 4 }, chain));
}, LLAMA_SERVER ? false : 'no llama-server here: tools/fetch-third-party llama-server');
