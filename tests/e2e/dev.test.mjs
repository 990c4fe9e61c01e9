// `atoll dev`: everything on this machine, and nothing of it left behind however it ends.
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { condition, fetchFrom, processesWith } from './lib/cluster.mjs';
import { ATOLL, eventually, Fleet, ROOT, run } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const QUICKSTART = path.join(ROOT, 'examples/quickstart');
const fleet = new Fleet();
const it = fleet.it.bind(fleet);

const devArgs = (state) => ['dev', '--state', state, '--free-ports', '--models', path.join(QUICKSTART, 'models'), '--site', 'onprem', '--site', 'edge', '--site', 'cloud'];

async function clientOf(state) {
  const admin = await credentials(path.join(state, 'admin.kubeconfig'));
  const env = { KUBECONFIG: path.join(state, 'admin.kubeconfig') };
  const api = (method, target, body, headers) => call(admin, method, target, body, headers);
  return {
    api,
    atoll: async (...args) => {
      const r = await run(ATOLL, args, { env });
      assert.equal(r.code, 0, `atoll ${args.join(' ')}\n${r.out}${r.err}`);
      return r.out;
    },
    get: async (kind, name) => (await api('GET', `/apis/atoll.dev/v1/namespaces/default/${kind}/${name}`)).body,
    list: async (kind) => (await api('GET', `/apis/atoll.dev/v1/${kind}`)).body.items,
  };
}

// The job of a terminal: its own process group, so that Ctrl-C reaches the children as well.
function inTerminal(state) {
  const child = spawn(ATOLL, devArgs(state), { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const p = { child, out: '', err: '' };
  child.stdout.on('data', (d) => (p.out += d));
  child.stderr.on('data', (d) => (p.err += d));
  p.exited = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  p.signal = (name) => {
    try {
      process.kill(-child.pid, name);
    } catch {
      // it has ended already
    }
  };
  return p;
}

// Everything of it has its state folder in its arguments or environment.
async function nothingLeft(state, what) {
  const mine = () => processesWith(state).filter((p) => !p.args.includes('node'));
  await eventually(`${what}: no process is left`, () => mine().length === 0, { timeoutMs: 15_000 }).catch((error) => {
    const left = mine();
    for (const p of left) process.kill(p.pid, 'SIGKILL');
    throw new Error(`${error.message}\n${JSON.stringify(left, null, 1)}`);
  });
}

const workload = (state) => ({
  apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'sleepers', namespace: 'default' },
  spec: { replicas: 3, template: { spec: { command: ['sh', '-c', 'sleep 1000 & trap "" TERM; sleep 1000'], env: [{ name: 'STATE', value: state }], terminationGracePeriod: '1s', port: -1 } } },
});

it('Ctrl-C at any time ends everything', async (t) => {
  for (const delayMs of [0, 20, 60, 120, 250, 400, 600, 900, 1300]) {
    const state = await fleet.dir('atoll-dev');
    const p = inTerminal(state);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    p.signal('SIGINT');
    const status = await p.exited;
    assert.ok(status.code === 0 || status.code === 130 || status.signal === 'SIGINT', `after ${delayMs} ms: ${JSON.stringify(status)}\n${p.out}${p.err}`);
    await nothingLeft(state, `${delayMs} ms`);
    t.diagnostic(`after ${delayMs} ms: ${p.out.includes('ready dev') ? 'it served' : 'it was starting'}`);
  }
}, { timeout: 240_000 });

it('Ctrl-C and even kill -9 end instances that run and ignore SIGTERM', async () => {
  for (const how of ['SIGINT', 'SIGKILL']) {
    const state = await fleet.dir('atoll-dev');
    const p = inTerminal(state);
    await eventually('it serves', () => /^ready dev$/m.test(p.out), { timeoutMs: 30_000 });
    const c = await clientOf(state);
    assert.equal((await c.api('POST', '/apis/atoll.dev/v1/namespaces/default/deployments', workload(state))).status, 201);
    await eventually('they run', async () => condition(await c.get('deployments', 'sleepers'), 'Ready') === 'True');
    assert.ok(processesWith(state).filter((x) => x.args.startsWith('sleep ')).length >= 3);
    if (how === 'SIGKILL') process.kill(p.child.pid, 'SIGKILL');
    else p.signal(how);
    await p.exited;
    await nothingLeft(state, how);
  }
}, { timeout: 120_000 });

it('state survives a restart, and --reset forgets it', async () => {
  const state = await fleet.dir('atoll-dev');
  const start = async (...more) => {
    const p = fleet.start('atoll dev', [...devArgs(state), ...more]);
    await p.line(/^ready dev$/m);
    return p;
  };
  let p = await start();
  let c = await clientOf(state);
  await c.api('POST', '/api/v1/namespaces/default/configmaps', { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'kept' }, data: { a: 'b' } });
  const slow = workload(state); // to end takes it longer than a node may be silent, while the other agents end at once
  Object.assign(slow.spec, { replicas: 1 }).template.spec.terminationGracePeriod = '4s';
  const quick = workload(state);
  quick.metadata.name = 'quick';
  quick.spec.template.spec.command = ['sleep', '1000'];
  for (const d of [slow, quick]) {
    await c.api('POST', '/apis/atoll.dev/v1/namespaces/default/deployments', d);
    await eventually('they run', async () => condition(await c.get('deployments', d.metadata.name), 'Ready') === 'True');
  }
  const where = async () => (await c.list('instances')).map((i) => `${i.metadata.name} on ${i.spec.nodeName}`).sort();
  const before = await where();
  assert.equal((await p.stop({ signal: 'SIGINT' })).code, 0);
  p = await start();
  c = await clientOf(state);
  assert.equal((await c.api('GET', '/api/v1/namespaces/default/configmaps/kept')).body.data.a, 'b');
  await eventually('its three nodes are ready', async () => (await c.list('nodes')).filter((n) => condition(n, 'Ready') === 'True').length === 3);
  await eventually('they run again', async () => (await c.list('instances')).filter((i) => i.status.ready).length === 4);
  assert.deepEqual(await where(), before);
  assert.equal((await p.stop()).code, 0);
  p = await start('--reset');
  c = await clientOf(state);
  assert.equal((await c.api('GET', '/api/v1/namespaces/default/configmaps/kept')).status, 404);
  assert.equal((await p.stop()).code, 0);
}, { timeout: 120_000 });

it('a second one on the same state says who has it', async () => {
  const state = await fleet.dir('atoll-dev');
  const p = fleet.start('atoll dev', devArgs(state));
  await p.line(/^ready dev$/m);
  const r = await run(ATOLL, devArgs(state));
  assert.notEqual(r.code, 0);
  assert.match(r.err, new RegExp(`${p.pid}`));
  const bad = await run(ATOLL, [...devArgs(await fleet.dir()), '--nonsense']);
  assert.equal(bad.code, 2);
  assert.equal((await p.stop()).code, 0);
});

it('the quickstart serves through the gateway while it is updated and while a site is lost', async (t) => {
  const state = await fleet.dir('atoll-dev');
  const p = fleet.start('atoll dev', devArgs(state));
  await p.line(/^ready dev$/m);
  const c = await clientOf(state);
  const manifests = (await readdir(QUICKSTART)).filter((f) => f.endsWith('.yaml')).sort();
  for (const file of manifests) await c.atoll('apply', '-f', path.join(QUICKSTART, file));
  const current = async () => {
    const d = await c.get('deployments', 'digits');
    return d.status?.observedGeneration === d.metadata.generation && condition(d, 'Ready') === 'True';
  };
  await eventually('digits are served', current, { timeoutMs: 60_000 });
  const restricted = await eventually('the restricted copy is placed', async () => (await c.list('instances')).find((i) => i.metadata.labels['atoll.dev/deployment'] === 'digits-restricted' && i.spec.nodeName));
  assert.notEqual(restricted.status.site, 'cloud');

  const gateway = (await readFile(path.join(state, 'gateway'), 'utf8')).trim().replace('http://', '');
  const token = (await readFile(path.join(state, 'inference.token'), 'utf8')).trim();
  const all = JSON.parse(await readFile(path.join(QUICKSTART, 'data/digits-test.json'), 'utf8')).inputs[0];
  const body = JSON.stringify({ inputs: [{ ...all, shape: [10, 64], data: all.data.slice(0, 10) }] });
  const infer = (auth = token) => fetchFrom(gateway, '/v2/models/digits/infer', { method: 'POST', body, headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${auth}` } });
  await eventually('the gateway has learnt the route', async () => (await infer()).status === 200);
  assert.equal((await infer('wrong')).status, 401);

  let done = false;
  let answered = 0;
  const failures = [];
  const traffic = Promise.all([1, 2, 3, 4].map(async () => {
    while (!done) {
      const r = await infer();
      if (r.status === 200) answered++;
      else failures.push({ at: new Date().toISOString(), ...r });
    }
  }));
  try {
    await c.api('PATCH', '/apis/atoll.dev/v1/namespaces/default/deployments/digits', { spec: { template: { metadata: { labels: { round: 'two' } } } } }, { 'Content-Type': 'application/merge-patch+json' });
    await eventually('the update is done', current, { timeoutMs: 60_000 });
    assert.deepEqual(failures, [], 'during the update');
    const updated = answered;
    assert.ok(updated > 0);

    const onprem = processesWith(state).find((x) => /\bagent\b.*--name onprem-1\b/.test(x.args));
    const instance = (await c.list('instances')).find((i) => i.spec.nodeName === 'onprem-1' && i.metadata.labels['atoll.dev/deployment'] === 'digits');
    const lostAt = Date.now();
    for (const pid of [onprem.pid, instance.status.pid]) process.kill(pid, 'SIGKILL'); // the restricted copy goes on: dev ends it later
    await eventually('it is replaced on another site', async () => {
      const list = (await c.list('instances')).filter((i) => i.metadata.labels['atoll.dev/deployment'] === 'digits');
      return list.filter((i) => i.status?.ready && i.spec.nodeName !== 'onprem-1').length === 3;
    }, { timeoutMs: 30_000 });
    t.diagnostic(`replaced after ${Date.now() - lostAt} ms; ${answered} answers`);
    assert.ok(answered > updated);
  } finally {
    done = true;
    await traffic;
  }
  assert.deepEqual(failures, []);
  await p.stop();
  await nothingLeft(state, 'after the quickstart');
}, { timeout: 180_000 });

it('a gateway that is killed comes back at the same address', async () => {
  const state = await fleet.dir('atoll-dev');
  const p = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports']);
  await p.line(/^ready dev$/m);
  const gateway = (await readFile(path.join(state, 'gateway'), 'utf8')).trim().replace('http://', '');
  const live = async () => (await fetchFrom(gateway, '/v2/health/live')).status;
  assert.equal(await live(), 200);
  process.kill(Number(await readFile(path.join(state, 'run/gateway.pid'), 'utf8')), 'SIGKILL');
  await eventually('it is gone', async () => (await live()) === undefined);
  await eventually('it is back', async () => (await live()) === 200);
  assert.equal(p.out.match(/^ready dev$/gm).length, 1);
  assert.equal((await p.stop({ signal: 'SIGINT' })).code, 0);
  await nothingLeft(state, 'after a restart of the gateway');
});

it('names a model folder, devices file or site that cannot be', async () => {
  const state = await fleet.dir('atoll-dev');
  const r = await run(ATOLL, ['dev', '--state', state, '--free-ports', '--site', 'x=/nonexistent.json']);
  assert.notEqual(r.code, 0);
  assert.match(r.err, /nonexistent\.json/);
  const wrong = async (words, ...args) => {
    const bad = await run(ATOLL, ['dev', '--state', state, '--free-ports', ...args]);
    assert.notEqual(bad.code, 0);
    assert.match(bad.err, words);
  };
  await wrong(/models: \/nonexistent: no such folder/, '--models', '/nonexistent');
  await wrong(/site: a is given twice/, '--site', 'a', '--site', 'a');
  await wrong(/--site Bad_Name: .*metadata\.name/, '--site', 'Bad_Name');
  await nothingLeft(state, 'bad devices');
});
