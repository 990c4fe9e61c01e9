// From none to one and back: requests wait, the control plane makes a copy, they go out in order; after a time without any it
// goes again. And a Deployment that rolls under load fails none.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { eventually, Fleet, run, ATOLL } from './lib/atoll.mjs';
import { Gateway, modelServer, serverScript } from './lib/gateway.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let dev;

async function start() {
  const state = await fleet.dir('atoll-zero');
  const proc = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--gateway-threads', '2', '--site', 'here']);
  await proc.line(/^ready dev$/m);
  const [, url] = await proc.line(/^gateway\s+(http\S+)$/m);
  const kubeconfig = path.join(state, 'admin.kubeconfig');
  const admin = await credentials(kubeconfig);
  const token = (await readFile(path.join(state, 'inference.token'), 'utf8')).trim();
  const at = (kind, name) => `/apis/atoll.dev/v1/namespaces/default/${kind}/${name}`;
  return {
    proc,
    gateway: new Gateway(url, token, proc),
    apply: async (object) => {
      const r = await call(admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', object);
      assert.equal(r.status, 201, JSON.stringify(r.body));
    },
    patch: async (name, body) => {
      const r = await call(admin, 'PATCH', at('deployments', name), body, { 'Content-Type': 'application/merge-patch+json' });
      assert.equal(r.status, 200, JSON.stringify(r.body));
    },
    remove: async (name) => {
      const r = await call(admin, 'DELETE', at('deployments', name));
      assert.equal(r.status, 200, JSON.stringify(r.body));
    },
    get: async (name) => (await call(admin, 'GET', at('deployments', name))).body,
    list: async (kind) => (await call(admin, 'GET', `/apis/atoll.dev/v1/${kind}`)).body.items,
    atoll: (...args) => run(ATOLL, args, { env: { KUBECONFIG: kubeconfig } }),
  };
}

const replicas = async (name) => (await dev.get(name)).spec.replicas;
const known = (name) => eventually(`${name} is known`, async () => (await dev.gateway.ask(`/v1/models/${name}`, { method: 'GET' })).status === 200);

it('requests to a Deployment with no copy make one, and all are answered', async () => {
  dev = await start();
  const script = await serverScript(fleet);
  await dev.apply(modelServer('zero', script, { replicas: 0, env: { START_MS: 300 }, spec: { autoscaling: { min: 0, idle: '5s' } } }));
  await known('zero');
  const gone = new AbortController();
  const asked = [];
  for (let i = 0; i < 20; i++) asked.push(dev.gateway.infer('zero'));
  const left = dev.gateway.infer('zero', { signal: gone.signal });
  await eventually('they wait', async () => (await dev.gateway.metric('atoll_gateway_queue_requests', { model: 'zero' })) === 21);
  gone.abort();
  await eventually('who goes away leaves the queue', async () => (await dev.gateway.metric('atoll_gateway_queue_requests', { model: 'zero' })) <= 20);
  const answers = await Promise.all(asked);
  assert.deepEqual([...new Set(answers.map((a) => a.status))], [200], JSON.stringify(answers.find((a) => a.status !== 200)));
  assert.match((await left).error, /abort/i);
  assert.equal(await replicas('zero'), 1);
  const told = (await dev.list('gatewayreports')).find((r) => r.metadata.name === 'gateway');
  assert.equal(told.status.deployments?.[0]?.name ?? 'zero', 'zero');
  await eventually('it goes again', async () => (await replicas('zero')) === 0, { timeoutMs: 20_000 });
  await eventually('nothing of it is left', async () => (await dev.list('instances')).length === 0, { timeoutMs: 15_000 });
  const again = await dev.gateway.chat('zero');
  assert.equal(again.status, 200, again.body);
  // Who waits for what is deleted is told at once.
  await dev.apply(modelServer('never', script, { replicas: 0, env: { START_MS: 60_000 }, spec: { autoscaling: { min: 0 } } }));
  await known('never');
  const waits = dev.gateway.infer('never');
  await eventually('it waits', async () => (await dev.gateway.metric('atoll_gateway_queue_requests', { model: 'never' })) === 1);
  await eventually('a copy is made', async () => (await replicas('never')) === 1);
  await dev.remove('never');
  assert.equal((await waits).status, 404);
  // And what was told by hand to have no copy answers at once.
  await dev.apply(modelServer('off', script, { replicas: 0 }));
  await known('off');
  assert.equal((await dev.gateway.infer('off')).status, 503);
}, { timeout: 90_000 });

// Keeps n requests of each kind under way until stop() is called, which resolves to what went wrong.
function load(model, n) {
  const bad = [];
  let on = true;
  let count = 0;
  const one = async (i) => {
    while (on) {
      const a = await (i % 2 ? dev.gateway.chat(model) : dev.gateway.infer(model));
      count++;
      if (a.status !== 200) bad.push(a);
    }
  };
  const all = Array.from({ length: n }, (_, i) => one(i));
  return async () => {
    on = false;
    await Promise.all(all);
    return { bad, count };
  };
}

it('a Deployment that rolls under load fails no request, not even of those that may not be sent again', async (t) => {
  const script = await serverScript(fleet);
  for (const env of [{ SLOW_MS: 20 }, { SLOW_MS: 20, RUDE: 1 }]) {
    const name = env.RUDE ? 'rude' : 'polite';
    await dev.apply(modelServer(name, script, { replicas: 2, env }));
    await eventually(`${name} serves`, async () => (await dev.get(name)).status?.readyReplicas === 2);
    await known(name);
    const stop = load(name, 16);
    for (const version of ['b', 'c']) {
      await dev.patch(name, { spec: { template: { metadata: { labels: { version } } } } });
      await eventually(`${name} is all ${version}`, async () => {
        const d = await dev.get(name);
        return d.status.observedGeneration === d.metadata.generation && d.status.conditions.find((c) => c.type === 'Ready').status === 'True';
      }, { timeoutMs: 40_000 });
    }
    const { bad, count } = await stop();
    t.diagnostic(`${name}: ${count} requests`);
    assert.deepEqual(bad.slice(0, 3), [], `${bad.length} of ${count}`);
    assert.ok(count > 100);
  }
}, { timeout: 120_000 });
