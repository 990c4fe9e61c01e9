// Which version and which replica a request gets: canaries, pins, copies, sessions, prompts, names across namespaces, and a
// gateway without its control plane.
import assert from 'node:assert/strict';
import { copyFile, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after } from 'node:test';
import { eventually, Fleet, ROOT } from './lib/atoll.mjs';
import { Cluster } from './lib/cluster.mjs';
import { Gateway, replica, staticGateway } from './lib/gateway.mjs';
import { call } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const QUICKSTART = path.join(ROOT, 'examples/quickstart');

async function backs(n, answer) {
  const list = await Promise.all(Array.from({ length: n }, () => replica(answer)));
  after(() => Promise.all(list.map((r) => r.stop())));
  return list;
}

const chat = (model, content, more = {}) => ({ body: JSON.stringify({ model, messages: [{ role: 'user', content }], ...more }) });

it('requests are renamed for replicas that know the model by another name', async () => {
  const [back] = await backs(1);
  const g = await staticGateway(fleet, { 'team/chat': [{ endpoint: back.endpoint, servedAs: 'llama "8b"/q4' }] });
  assert.equal((await g.ask('/v2/models/team%2Fchat/versions/1/infer?a=b')).status, 200);
  assert.equal(back.seen.at(-1).url, '/v2/models/llama%20%228b%22%2Fq4/versions/1/infer?a=b');
  assert.equal((await g.ask('/v1/chat/completions', { body: ' {"n":1, "model" : "team\\/chat","x":"team/chat"}' })).status, 200);
  assert.equal(back.seen.at(-1).body, ' {"n":1, "model" : "llama \\"8b\\"/q4","x":"team/chat"}');
  assert.equal(Number(back.seen.at(-1).headers['content-length']), back.seen.at(-1).body.length);
  // The next replica, and the copy, are asked by their own names.
  const [plain, copy] = await backs(2);
  const [cuts] = await backs(1, (req) => req.socket.destroy());
  const two = await staticGateway(fleet, {
    m: [
      { endpoint: cuts.endpoint, instance: 'cuts', servedAs: 'other' },
      { endpoint: plain.endpoint, instance: 'plain' },
      { endpoint: copy.endpoint, instance: 'copy', deployment: 'copy', version: '9', shadow: 100, servedAs: 'third' },
    ],
  });
  for (let i = 0; i < 4; i++) assert.equal((await two.infer('m')).status, 200);
  assert.ok(cuts.seen.length > 0);
  assert.ok(cuts.seen.every((r) => r.url === '/v2/models/other/infer'));
  assert.ok(plain.seen.length === 4 && plain.seen.every((r) => r.url === '/v2/models/m/infer'));
  await eventually('copies have come', () => copy.seen.length === 4);
  assert.ok(copy.seen.every((r) => r.url === '/v2/models/third/infer'));
});

it('copies go out beside requests; a copy that hangs or fails is nobody\'s trouble', async () => {
  const [main] = await backs(1);
  const [hangs, cuts] = [...(await backs(1, () => {})), ...(await backs(1, (req) => req.socket.destroy()))];
  const g = await staticGateway(fleet, {
    m: [
      { endpoint: main.endpoint, instance: 'main', deployment: 'main' },
      { endpoint: hangs.endpoint, instance: 'hangs', deployment: 'hangs', version: 'h', shadow: 100 },
      { endpoint: cuts.endpoint, instance: 'cuts', deployment: 'cuts', version: 'c', shadow: 100 },
    ],
  });
  for (let i = 0; i < 100; i++) {
    const a = await g.infer('m', { body: `{"i":${i}}` });
    assert.equal(a.status, 200);
    assert.equal(a.headers['x-atoll-instance'], 'main');
  }
  assert.equal(main.seen.length, 100);
  assert.equal(main.seen[0].headers['x-atoll-shadow'], undefined);
  await eventually('copies have come', () => hangs.seen.length > 40);
  assert.ok(hangs.seen.length <= 64); // the bound on what is under way
  assert.equal(hangs.seen[0].body, '{"i":0}');
  assert.equal(hangs.seen[0].headers['x-atoll-shadow'], '1');
  assert.equal(await g.metric('atoll_gateway_shadow_requests_total', { version: 'h', outcome: 'sent' }), hangs.seen.length);
  assert.ok((await g.metric('atoll_gateway_shadow_requests_total', { version: 'h', outcome: 'dropped' })) > 0);
  await eventually('the other copies have failed', async () => (await g.metric('atoll_gateway_shadow_requests_total', { version: 'c', outcome: 'failed' })) > 0);
});

it('prompts go where their beginning is; sessions stay, by header, body and cookie', async () => {
  const list = await backs(4);
  const g = await staticGateway(fleet, { m: list.map((b, i) => ({ endpoint: b.endpoint, instance: `r${i}` })) });
  const where = async (options) => (await g.ask('/v1/chat/completions', options)).headers['x-atoll-instance'];
  const documents = Array.from({ length: 6 }, (_, i) => `document ${i} `.repeat(200));
  const homes = [];
  for (const d of documents) homes.push(await where(chat('m', d)));
  assert.ok(new Set(homes).size > 1);
  for (let round = 0; round < 5; round++) {
    for (const [i, d] of documents.entries()) assert.equal(await where(chat('m', `${d} question ${round}`)), homes[i]);
  }
  assert.ok((await g.metric('atoll_gateway_prefix_blocks_total', { state: 'hit' })) > 5 * 6 * 10);
  assert.equal(await g.metric('atoll_gateway_choices_total', { reason: 'prefix' }), 30);
  for (const options of [{ headers: { 'X-Atoll-Session': 's1' } }, chat('m', 'x', { session_id: 's2' }), chat('m', 'x', { prompt_cache_key: 's3' })]) {
    const all = new Set();
    for (let i = 0; i < 12; i++) all.add(await where({ ...chat('m', 'x'), ...options }));
    assert.equal(all.size, 1);
  }
});

it('who waits for a busy version holds up nobody else, and a replica never has more than it takes', async () => {
  const held = [];
  const [stable] = await backs(1);
  const [busy] = await backs(1, (req, res) => held.push(res));
  const g = await staticGateway(
    fleet,
    {
      m: [
        { endpoint: stable.endpoint, instance: 'stable', deployment: 'stable', version: '1' },
        { endpoint: busy.endpoint, instance: 'busy', deployment: 'busy', version: '2', weight: 0, requestsPerReplica: 2 },
      ],
    },
    { policies: { m: { waiting: { timeout: '30s' } } }, threads: 2 },
  );
  const pinned = Array.from({ length: 6 }, () => g.infer('m', { headers: { 'X-Atoll-Version': '2' } }));
  await eventually('two are there, four wait', async () => busy.open === 2 && (await g.metric('atoll_gateway_queue_requests', { model: 'm' })) === 4);
  for (let i = 0; i < 30; i++) assert.equal((await g.infer('m')).headers['x-atoll-instance'], 'stable');
  for (let n = 0; n < 6; n++) {
    await eventually('one is held', () => held.length > 0);
    held.shift().writeHead(200, { 'Content-Type': 'application/json' }).end('{}');
  }
  for (const a of await Promise.all(pinned)) assert.equal(a.status, 200, a.body);
  assert.equal(busy.most, 2);
});

const served = (name, namespace, replicas, traffic, model = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Deployment',
  metadata: { name, namespace },
  spec: { replicas, traffic, template: { spec: { runner: 'onnx', model: { name: 'digits', uri: 'file:digits.onnx', ...model }, resources: { cpu: '50m', memory: '64Mi' } } } },
});

it('canary, pins, namespaces and a lost control plane, with real model servers', async () => {
  const models = await fleet.dir('atoll-models');
  await copyFile(path.join(QUICKSTART, 'models/digits.onnx'), path.join(models, 'digits.onnx'));
  const c = await Cluster.start(fleet, { 'local-1': 'local' }, { agentArgs: ['--models', models] });
  await c.server.k('create namespace team-b');
  await c.server.apply([served('digits', 'default', 2, undefined)]);
  await c.server.apply([served('canary', 'default', 1, { weight: 20 }, { version: '2' }), served('digits', 'team-b', 1, undefined)]);
  const token = (await call(c.url, 'POST', '/join/v1/tokens', { role: 'gateway', site: 'local', ttl: '1h' })).body;
  const proc = fleet.start('gateway', ['gateway', '--server', c.server.url, '--token', token.token, '--ca-pin', token.caPin, '--name', 'g1', '--state', await fleet.dir('atoll-gateway'), '--listen', '127.0.0.1:0', '--threads', '2']);
  const g = new Gateway((await proc.line(/^ready gateway (\S+)$/m))[1], null, proc);
  const body = await readFile(path.join(QUICKSTART, 'data/digits-test.json'), 'utf8').then((t) => {
    const [input] = JSON.parse(t).inputs;
    return JSON.stringify({ inputs: [{ name: input.name, datatype: 'FP32', shape: [1, 64], data: input.data[0] }] });
  });
  await eventually('all four serve', async () => (await g.metric('atoll_gateway_route_replicas')) === 4, { timeoutMs: 60_000 });
  const ask = async (options = {}, name = 'digits') => {
    const a = await g.infer(name, { body, ...options });
    assert.equal(a.status, 200, a.body);
    return JSON.parse(a.body).model_version;
  };
  const canary = async (n, options = () => ({})) => {
    let of2 = 0;
    for (let i = 0; i < n; i++) of2 += (await ask(options(i))) === '2';
    return of2;
  };
  const share = await canary(300); // 60, standard deviation 7
  assert.ok(share > 18 && share < 102, `${share} of 300`);
  const users = {};
  for (let i = 0; i < 120; i++) (users[i % 30] ??= new Set()).add(await ask({ headers: { 'X-Atoll-User': `u${i % 30}` } }));
  assert.ok(Object.values(users).every((v) => v.size === 1));
  for (const v of ['1', '2']) {
    for (let i = 0; i < 10; i++) assert.equal(await ask({ headers: { 'X-Atoll-Version': v } }), v);
    const pinned = await g.ask(`/v2/models/digits/versions/${v}/infer`, { body });
    assert.equal(JSON.parse(pinned.body).model_version, v, pinned.body);
  }
  const unknown = await g.infer('digits', { body, headers: { 'X-Atoll-Version': '7' } });
  assert.equal(unknown.status, 404);
  assert.match(unknown.body, /no version 7; there are .*1.*2|no version 7; there are .*2.*1/);
  await c.patch('deployments', 'canary', { spec: { traffic: { weight: 100 } } });
  await eventually('all goes to the canary', async () => (await canary(10)) === 10);
  await c.patch('deployments', 'canary', { spec: { traffic: { weight: 0 } } });
  await eventually('nothing goes there', async () => (await canary(10)) === 0);
  assert.equal(await canary(40), 0);
  assert.equal(await ask({ headers: { 'X-Atoll-Version': '2' } }), '2'); // but who asks for it

  const other = await g.ask('/v2/models/team-b%2Fdigits/infer', { body });
  assert.equal(other.status, 200, other.body);
  const listed = JSON.parse((await g.ask('/v1/models', { method: 'GET' })).body).data.map((m) => m.id);
  assert.deepEqual(listed.sort(), ['digits', 'team-b/digits']);
  const mine = await g.ask('/v2/models/default%2Fdigits/infer', { body });
  assert.equal(mine.status, 200);
  assert.notEqual(mine.headers['x-atoll-instance'], other.headers['x-atoll-instance']);

  await c.server.proc.kill('SIGKILL');
  await eventually('the gateway has noticed', async () => (await g.metric('atoll_gateway_control_plane_connected')) === 0);
  for (let i = 0; i < 50; i++) assert.equal(await ask(), '1');
  await c.server.start();
  await eventually('it is back', async () => (await g.metric('atoll_gateway_control_plane_connected')) === 1, { timeoutMs: 30_000 });
  assert.equal(await ask(), '1');
});
