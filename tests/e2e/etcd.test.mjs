// Several servers on one etcd: all of them serve, one of them leads, and etcd may go away for a while.
import assert from 'node:assert/strict';
import https from 'node:https';
import path from 'node:path';
import { Cluster, condition, Fleet, processesWith, web, webRoot } from './lib/cluster.mjs';
import { eventually } from './lib/atoll.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';
import { call, credentials } from './lib/rest.mjs';

const MAPS = '/api/v1/namespaces/default/configmaps';
const fleet = new Fleet();
const it = (name, fn) => fleet.it(name, fn, { skip: ETCD_MISSING });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const map = (name, data = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data });

async function trio(n = 3) {
  const etcd = await Etcd.start(fleet);
  const args = ['--store', `etcd:${etcd.url}`, '--pki', path.join(await fleet.dir('atoll-pki'), 'pki')];
  const servers = await Promise.all(Array.from({ length: n }, () => fleet.server({ args }))); // at once: one of them makes the CA
  for (const s of servers) s.admin = await credentials(s.kubeconfig);
  return { etcd, servers, args };
}

async function leads(server) {
  const { body } = await call(server.admin, 'GET', '/metrics');
  return /^atoll_server_leading 1$/m.test(body);
}

async function leaderOf(servers) {
  return eventually('one server leads', async () => {
    const alive = servers.filter((s) => !s.proc.ended);
    const list = await Promise.all(alive.map(leads));
    assert.ok(list.filter(Boolean).length <= 1, 'two servers lead');
    return alive[list.indexOf(true)];
  }, { timeoutMs: 15_000 });
}

// Events of a watch, until stop() is called.
function watch({ url, ...tls }, target, events) {
  const req = https.request(new URL(target, url), { ...tls, agent: false }, (res) => {
    let rest = '';
    res.on('data', (d) => {
      const lines = (rest + d).split('\n');
      rest = lines.pop();
      for (const line of lines) events.push(JSON.parse(line));
    });
    res.on('error', () => {});
  });
  req.on('error', () => {});
  req.end();
  return () => req.destroy();
}

it('three servers serve at once: what one writes the others show at once, and tell their watchers', async () => {
  const { servers } = await trio();
  const [a, b, c] = servers;
  await leaderOf(servers);
  const { body: list } = await call(b.admin, 'GET', MAPS);
  const events = [];
  const stop = watch(b.admin, `${MAPS}?watch=true&resourceVersion=${list.metadata.resourceVersion}`, events);
  for (let i = 0; i < 50; i++) {
    const made = await call(a.admin, 'POST', MAPS, map(`m${i}`, { i: `${i}` }));
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const read = await call(c.admin, 'GET', `${MAPS}/m${i}`);
    assert.equal(read.status, 200, 'a read at another server is of now');
    assert.equal(read.body.metadata.resourceVersion, made.body.metadata.resourceVersion);
    const put = await call(b.admin, 'PUT', `${MAPS}/m${i}`, { ...made.body, data: { i: 'changed' } });
    assert.equal(put.status, 200, JSON.stringify(put.body));
    const stale = await call(c.admin, 'PUT', `${MAPS}/m${i}`, { ...made.body, data: { i: 'lost' } });
    assert.equal(stale.status, 409);
  }
  await eventually('the watcher has seen all', () => events.length >= 100);
  stop();
  assert.equal(events.length, 100);
  const revisions = events.map((e) => Number(e.object.metadata.resourceVersion));
  assert.ok(revisions.every((r, i) => i === 0 || r > revisions[i - 1]), 'events out of order or twice');
  assert.deepEqual(events.map((e) => e.type), Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? 'ADDED' : 'MODIFIED')));
});

it('one counter raised through three servers at once counts every acknowledged step', async () => {
  const { servers } = await trio();
  assert.equal((await call(servers[0].admin, 'POST', MAPS, map('counter', { n: '0' }))).status, 201);
  let acked = 0;
  await Promise.all(servers.map(async (s) => {
    for (let i = 0; i < 40; i++) {
      const { body } = await call(s.admin, 'GET', `${MAPS}/counter`);
      const put = await call(s.admin, 'PUT', `${MAPS}/counter`, { ...body, data: { n: `${Number(body.data.n) + 1}` } });
      assert.ok(put.status === 200 || put.status === 409, JSON.stringify(put.body));
      acked += put.status === 200;
    }
  }));
  for (const s of servers) assert.equal(Number((await call(s.admin, 'GET', `${MAPS}/counter`)).body.data.n), acked);
  assert.ok(acked >= 40);
});

it('kill -9 of the leader moves leadership in under 5 s, and a scaling under way ends with exactly the right copies', async (t) => {
  const { servers } = await trio();
  const leader = await leaderOf(servers);
  const others = servers.filter((s) => s !== leader);
  const c = new Cluster();
  Object.assign(c, { fleet, agentArgs: [], agents: {}, mark: `atoll-e2e-${process.pid}-${Date.now()}`, server: others[0], admin: others[0].admin });
  await c.server.apply({ apiVersion: 'atoll.dev/v1', kind: 'Site', metadata: { name: 'here' }, spec: { class: 'edge', jurisdiction: 'EU' } });
  await Promise.all(['n1', 'n2'].map((n) => c.join(n, 'here'))); // at a server that does not lead: beats reach the leader through etcd
  await eventually('nodes are ready', async () => (await c.list('nodes')).filter((n) => condition(n, 'Ready') === 'True').length === 2);
  const manifest = web('web', c, { replicas: 2, root: await webRoot(fleet, 'hello') });
  await call(leader.admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', manifest);
  await c.ready('web', { timeoutMs: 40_000 });
  const before = (await c.instances('web')).map((i) => i.metadata.uid).sort();
  assert.equal(before.length, 2);

  const seen = [];
  const stop = watch(others[1].admin, '/apis/atoll.dev/v1/instances?watch=true', seen);
  await c.patch('deployments', 'web', { spec: { replicas: 7 } });
  const killed = Date.now();
  await leader.proc.kill('SIGKILL');
  const next = await leaderOf(others);
  const took = Date.now() - killed;
  t.diagnostic(`leadership moved in ${took} ms`);
  assert.ok(took < 5000, `leadership took ${took} ms`);
  assert.notEqual(next, leader);
  await c.ready('web', { timeoutMs: 40_000 });
  await pause(1500); // nothing more may happen
  stop();
  const after = await c.instances('web');
  assert.equal(after.length, 7);
  assert.equal(new Set(after.map((i) => i.status.endpoint)).size, 7);
  for (const uid of before) assert.ok(after.some((i) => i.metadata.uid === uid), 'a copy that ran was replaced');
  const made = new Set(seen.filter((e) => e.type === 'ADDED').map((e) => e.object.metadata.uid));
  assert.equal(made.size, 7, 'copies were made and thrown away');
  assert.equal(processesWith(c.mark).length, 7);
  for (const n of await c.list('nodes')) assert.equal(condition(n, 'Ready'), 'True');

  // A node that falls silent at a server that does not lead is still found.
  await call(c.admin, 'PATCH', '/apis/atoll.dev/v1/namespaces/default/deployments/web', { spec: { replicas: 0 } }, { 'Content-Type': 'application/merge-patch+json' });
  await eventually('all copies are gone', async () => (await c.instances('web')).length === 0);
  const silent = Date.now();
  await c.killAgent('n2');
  await eventually('the node is lost', async () => (await c.list('nodes')).some((n) => n.metadata.name === 'n2' && condition(n, 'Ready') === 'False'));
  t.diagnostic(`a silent node was found in ${Date.now() - silent} ms`);
  assert.equal(condition((await c.list('nodes')).find((n) => n.metadata.name === 'n1'), 'Ready'), 'True');
});

it('of three members of etcd any one may be lost: writes go on by the others', async (t) => {
  const members = await Etcd.cluster(fleet, 3);
  const server = await fleet.server({ args: ['--store', `etcd:${members.map((m) => m.url).join(',')}`] });
  const admin = await credentials(server.kubeconfig);
  const acked = new Map();
  let over = false;
  const workers = Array.from({ length: 4 }, async (_, id) => {
    for (let i = 0; !over; i++) {
      const r = await call(admin, 'POST', MAPS, map(`w${id}-${i}`));
      if (r.status === 201) acked.set(r.body.metadata.name, r.body.metadata.resourceVersion);
      else assert.ok([503, 504].includes(r.status), `${r.status} ${JSON.stringify(r.body)}`);
    }
  });
  for (const m of [members[0], members[1], members[2]]) {
    const before = acked.size;
    await eventually('writes are taken', () => acked.size > before + 10);
    const lost = Date.now();
    await m.kill();
    const then = acked.size;
    await eventually('writes are taken by the other two', () => acked.size > then + 10, { timeoutMs: 15_000 });
    t.diagnostic(`${m.name} lost: 10 writes within ${Date.now() - lost} ms`);
    await m.start();
  }
  over = true;
  await Promise.all(workers);
  const { body: list } = await call(admin, 'GET', MAPS);
  const maps = new Map(list.items.map((o) => [o.metadata.name, o.metadata.resourceVersion]));
  for (const [name, version] of acked) assert.equal(maps.get(name), version, `${name} was acknowledged`);
});

for (const how of ['killed and started again', 'frozen']) {
  it(`etcd ${how} for 10 s under load: what was acknowledged is there, servers refuse meanwhile and recover`, async (t) => {
    const { etcd, servers } = await trio(2);
    await leaderOf(servers);
    const acked = new Map();
    const refused = new Map();
    let over = false;
    const worker = async (id) => {
      const s = servers[id % servers.length];
      for (let i = 0; !over; i++) {
        const name = `w${id}-${i}`;
        const r = await call(s.admin, 'POST', MAPS, map(name, { by: `${id}` }));
        if (r.status === 201) acked.set(name, r.body.metadata);
        else refused.set(name, r.status);
        if (r.status !== 201) await pause(100);
      }
    };
    const workers = Array.from({ length: 8 }, (_, id) => worker(id));
    await pause(1000);
    const early = acked.size;
    assert.ok(early > 20, `${early} writes in a second`);
    if (how === 'frozen') etcd.signal('SIGSTOP');
    else await etcd.kill();
    await pause(5000);
    const during = await call(servers[0].admin, 'GET', MAPS);
    assert.ok([503, 504].includes(during.status), `a read without etcd: ${during.status}`);
    assert.equal((await call(servers[0].admin, 'GET', '/healthz')).status, 200);
    await pause(5000);
    const middle = acked.size;
    if (how === 'frozen') etcd.signal('SIGCONT');
    else await etcd.start();
    await eventually('writes are taken again', () => acked.size > middle + 20, { timeoutMs: 10_000 });
    await leaderOf(servers);
    over = true;
    await Promise.all(workers);
    for (const status of refused.values()) assert.ok([503, 504].includes(status), `refused with ${status}`);
    assert.ok(refused.size > 0);
    for (const s of servers) {
      const { body: list } = await call(s.admin, 'GET', MAPS);
      const maps = new Map(list.items.map((o) => [o.metadata.name, o.metadata]));
      for (const [name, metadata] of acked) assert.equal(maps.get(name)?.resourceVersion, metadata.resourceVersion, `${name} was acknowledged`);
      for (const name of maps.keys()) assert.ok(acked.has(name) || refused.has(name) || !/^w/.test(name), name);
    }
    t.diagnostic(`${acked.size} acknowledged, ${refused.size} refused`);
  });
}
