// Several servers on one etcd: all of them serve, one of them leads, and etcd may go away for a while.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import https from 'node:https';
import path from 'node:path';
import { Cluster, condition, Fleet, processesWith, web, webRoot } from './lib/cluster.mjs';
import { ATOLL, eventually, run } from './lib/atoll.mjs';
import { certificates, Etcd, ETCD_MISSING } from './lib/etcd.mjs';
import { call, credentials } from './lib/rest.mjs';

const MAPS = '/api/v1/namespaces/default/configmaps';
const fleet = new Fleet();
const it = (name, fn) => fleet.it(name, fn, { skip: ETCD_MISSING });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const map = (name, data = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data });

async function trio(n = 3) {
  const etcd = await Etcd.start(fleet);
  const args = ['--node-timeout', '3s', '--store', `etcd:${etcd.url}`, '--pki', path.join(await fleet.dir('atoll-pki'), 'pki')];
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
  const thrown = seen.filter((e) => e.type === 'DELETED').map((e) => `${e.object.metadata.name} ${e.object.spec.nodeName} ${JSON.stringify(e.object.status)}`);
  assert.equal(made.size, 7, `copies were made and thrown away: ${thrown.join('\n')}`);
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

it('agents and gateways learn of all servers: any may die or freeze, and any shows logs, runs commands and forwards ports', async (t) => {
  const { servers } = await trio();
  const [first, ...rest] = servers;
  await leaderOf(servers);
  const c = new Cluster();
  Object.assign(c, { fleet, agentArgs: [], agents: {}, mark: `atoll-e2e-${process.pid}-${Date.now()}`, server: first, admin: first.admin });
  await first.apply({ apiVersion: 'atoll.dev/v1', kind: 'Site', metadata: { name: 'here' }, spec: { class: 'edge', jurisdiction: 'EU' } });
  await c.join('n1', 'here'); // told of the first one only
  const gatewayToken = (await call(first.admin, 'POST', '/join/v1/tokens', { role: 'gateway', site: 'here', ttl: '1h' })).body;
  const gateway = fleet.start('gateway', ['gateway', '--server', 'https://127.0.0.1:1', '--server', first.url, '--token', gatewayToken.token, '--ca-pin', gatewayToken.caPin, '--name', 'g', '--state', await fleet.dir('atoll-gateway'), '--listen', '127.0.0.1:0']);
  const [, at] = await gateway.line(/^ready gateway (\S+)$/m);
  const manifest = { apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'talk' }, spec: { replicas: 1, template: { spec: { command: ['sh', '-c', `echo "I am $ATOLL_INSTANCE"; exec busybox httpd -f -p 127.0.0.1:$(PORT) -h ${await webRoot(fleet, 'forwarded')}`], resources: { cpu: '50m' } } } } };
  assert.equal((await call(first.admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', manifest)).status, 201);
  await c.ready('talk', { timeoutMs: 40_000 });
  const [{ metadata: { name }, status: { endpoint } }] = await c.instances('talk');
  const log = (s) => call(s.admin, 'GET', `/apis/atoll.dev/v1/namespaces/default/instances/${name}/log`);
  for (const s of servers) {
    await eventually('the agent has a tunnel to each server', async () => (await log(s)).body === `I am ${name}\n`);
    assert.equal(await s.k(['exec', name, '--', 'echo', 'by', s.url]), `by ${s.url}\n`);
    const forward = await s.kubectlStart(`port-forward pod/${name} :${endpoint.split(':').at(-1)}`);
    const [, port] = await forward.line(/^Forwarding from 127\.0\.0\.1:(\d+) ->/m);
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'forwarded');
    await forward.kill('SIGKILL');
  }
  const alive = async (s, what) => {
    const seen = new Set();
    for (const end = Date.now() + 3000; Date.now() < end; await pause(100)) {
      const { body } = await call(s.admin, 'GET', '/apis/atoll.dev/v1/nodes/n1');
      seen.add(condition(body, 'Ready'));
    }
    assert.deepEqual([...seen], ['True'], `the node was lost when ${what}`);
  };
  const routes = async (n) => new RegExp(`^atoll_gateway_route_models ${n}$`, 'm').test(await (await fetch(`${at}/metrics`)).text());
  const another = async (s, another) => assert.equal((await call(s.admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', { ...manifest, metadata: { name: another } })).status, 201);

  // People's files name the others, too, as soon as they are known; kubectl does not mind.
  await eventually('the kubeconfig names all', async () => (await readFile(first.kubeconfig, 'utf8')).includes(rest[1].url));
  assert.match(await first.k('get nodes.atoll.dev'), /n1/);

  // The first one dies: what it did goes on at the others, whichever the agent and the gateway had chosen.
  await first.proc.kill('SIGKILL');
  const [second, third] = rest;
  await alive(second, 'a server died');
  const got = await first.atoll(['get', 'nodes']);
  assert.equal(got.code, 0, got.err);
  assert.match(got.out, /n1/);
  assert.equal((await log(third)).body, `I am ${name}\n`);
  await c.killAgent('n1');
  await c.startAgent('n1'); // given the dead one only: it remembers the others
  await another(second, 'second');
  await eventually('the gateway watches on', () => routes(2));

  // One freezes: it takes connections and says nothing.
  second.proc.child.kill('SIGSTOP');
  await eventually('the other one leads', () => leads(third), { timeoutMs: 10_000 });
  await alive(third, 'a server froze');
  c.server = third;
  c.admin = third.admin;
  await c.patch('deployments', 'talk', { spec: { replicas: 2 } });
  const begun = Date.now();
  await c.ready('talk', { timeoutMs: 20_000 });
  t.diagnostic(`a copy more ${Date.now() - begun} ms after the change, with one server dead and one frozen`);
  await another(third, 'third');
  await eventually('the gateway watches on', () => routes(3));
  second.proc.child.kill('SIGCONT');
  await pause(200);
});

// A server with such a store does not start, and says why.
async function refused(store, why) {
  const state = await fleet.dir('atoll-refused');
  const r = await run(ATOLL, ['server', '--state', state, '--listen', '127.0.0.1:0', '--store', store], { timeoutMs: 30_000 });
  assert.notEqual(r.code, 0, store);
  assert.match(r.err, why, store);
}

it('etcd with TLS and client certificates: who has one is served, who has none is told what to add', async () => {
  const tls = await certificates(fleet);
  const members = await Etcd.cluster(fleet, 1, { tls });
  const urls = `etcd:https://127.0.0.1:1,${members[0].url}`; // one is dead
  const good = `${urls}?ca=${tls.ca}&cert=${tls.clientCert}&key=${tls.clientKey}`;
  const server = await fleet.server({ args: ['--store', good] });
  const admin = await credentials(server.kubeconfig);
  const events = [];
  const stop = watch(admin, `${MAPS}?watch=true`, events);
  assert.equal((await call(admin, 'POST', MAPS, map('a'))).status, 201);
  await eventually('the watch goes on over TLS', () => events.some((e) => e.object.metadata.name === 'a'));
  stop();
  await members[0].kill();
  await members[0].start();
  await eventually('writes go on', async () => (await call(admin, 'POST', MAPS, map('b'))).status === 201);
  await Promise.all([
    [`${urls}?ca=${tls.ca}`, /add cert=FILE&key=FILE/],
    [`etcd:${members[0].url}`, /name the authority.*\?ca=FILE/],
    [`etcd:${members[0].url}?ca=${path.join(server.state, 'pki/ca.crt')}&cert=${tls.clientCert}&key=${tls.clientKey}`, /certificate|self.signed|issuer/i],
    [`etcd:http://127.0.0.1:${members[0].port}`, /etcd/],
  ].map((one) => refused(...one)));
  // The other roles that open a store take the same address.
  await server.stop();
  const check = await run(ATOLL, ['store', 'check', '--store', good]);
  assert.match(check.out, /^sound: /, check.err);
});

it('certificates towards etcd that are renewed in place are read again: the authority and the client\'s own', async () => {
  const tls = await certificates(fleet);
  const [member] = await Etcd.cluster(fleet, 1, { tls });
  const server = await fleet.server({ args: ['--store', `etcd:${member.url}?ca=${tls.ca}&cert=${tls.clientCert}&key=${tls.clientKey}`] });
  const admin = await credentials(server.kubeconfig);
  assert.equal((await call(admin, 'POST', MAPS, map('before'))).status, 201);
  const events = [];
  const stop = watch(admin, `${MAPS}?watch=true`, events);
  // Another authority issues all of them: what the server read at its start is worth nothing any more, on either side.
  await certificates(fleet, tls.dir);
  await member.kill();
  await member.start();
  await eventually('writes go on with the renewed files', async () => (await call(admin, 'POST', MAPS, map('after'))).status === 201, { timeoutMs: 30_000 });
  await eventually('so does the watch', () => events.some((e) => e.object.metadata.name === 'after'));
  stop();
  assert.equal(server.proc?.child?.exitCode ?? null, null, 'the server was not restarted');
});

it('etcd with users and passwords: a server is let in, stays in when etcd forgets it, and says what is wrong otherwise', async () => {
  const etcd = await Etcd.start(fleet);
  const store = (user, file) => `etcd:${etcd.url}?user=${user}&password-file=${file}`;
  await etcd.call('/v3/auth/user/add', { name: 'root', password: 'of all' });
  await etcd.call('/v3/auth/user/grant', { user: 'root', role: 'root' }).catch(async () => {
    await etcd.call('/v3/auth/role/add', { name: 'root' });
    await etcd.call('/v3/auth/user/grant', { user: 'root', role: 'root' });
  });
  await etcd.call('/v3/auth/role/add', { name: 'everything' });
  await etcd.call('/v3/auth/role/grant', { name: 'everything', perm: { permType: 'READWRITE', key: 'AA==', range_end: 'AA==' } });
  for (const name of ['atoll', 'other']) await etcd.call('/v3/auth/user/add', { name, password: `of "${name}"` });
  await etcd.call('/v3/auth/user/grant', { user: 'atoll', role: 'everything' });
  await etcd.call('/v3/auth/enable', {});
  const password = await fleet.file('password', 'of "atoll"\n');
  // A store moves there: reads, writes and compacts with that user's rights.
  const old = await fleet.server();
  await old.stop();
  const dump = path.join(await fleet.dir('atoll-dump'), 'dump');
  for (const args of [['export', dump, '--state', old.state], ['import', dump, '--store', store('atoll', password)]]) {
    const r = await run(ATOLL, ['store', ...args]);
    assert.equal(r.code, 0, r.err);
  }
  const server = await fleet.server({ args: ['--store', store('atoll', password)] });
  const admin = await credentials(server.kubeconfig);
  await leaderOf([Object.assign(server, { admin })]); // whose record has a lease
  assert.equal((await call(admin, 'POST', MAPS, map('a'))).status, 201);
  // Its tokens live in etcd's memory.
  await etcd.kill();
  await etcd.start();
  await eventually('writes go on with a new token', async () => (await call(admin, 'POST', MAPS, map('b'))).status === 201);
  const event = { apiVersion: 'v1', kind: 'Event', metadata: { name: 'e' }, involvedObject: { kind: 'ConfigMap', name: 'a', namespace: 'default' }, reason: 'Seen', message: 'm', type: 'Normal' };
  assert.equal((await call(admin, 'POST', '/api/v1/namespaces/default/events', event)).status, 201);
  const { token } = await etcd.call('/v3/auth/authenticate', { name: 'root', password: 'of all' });
  const { leases } = await etcd.call('/v3/lease/leases', {}, token);
  const ttls = await Promise.all(leases.map(async ({ ID }) => (await etcd.call('/v3/lease/timetolive', { ID, keys: true }, token)).grantedTTL));
  assert.ok(ttls.includes('3600'), `an Event hangs on a lease: ${ttls}`);

  const wrong = await fleet.file('password', 'wrong');
  await Promise.all([
    [`etcd:${etcd.url}`, /add user=NAME&password-file=FILE/],
    [store('atoll', wrong), /authentication failed.*look at user and password-file/],
    [store('other', await fleet.file('password', 'of "other"')), /permission denied.*give the user a role/],
    [store('atoll', '/nonexistent'), /password-file.*\/nonexistent/],
  ].map((one) => refused(...one)));
});

it('a leader that is frozen past its lease does nothing when it wakes: each copy is made once', async (t) => {
  const { servers } = await trio(2);
  const deployments = '/apis/atoll.dev/v1/namespaces/default/deployments';
  const leader = await leaderOf(servers);
  const other = servers.find((s) => s !== leader);
  const name = 'd';
  const seen = [];
  const stop = watch(other.admin, '/apis/atoll.dev/v1/instances?watch=true&labelSelector=' + encodeURIComponent(`atoll.dev/deployment=${name}`), seen);
  // No node: copies are made and stay. Frozen at once, in the middle of making them.
  const manifest = { apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name }, spec: { replicas: 150, template: { spec: { command: ['sleep', '1000'] } } } };
  const made = call(other.admin, 'POST', deployments, manifest);
  await eventually('it has begun', () => seen.length > 0, { everyMs: 1 });
  leader.proc.child.kill('SIGSTOP');
  const early = seen.length;
  assert.equal((await made).status, 201);
  await eventually('the other one leads', () => leads(other), { timeoutMs: 10_000 });
  leader.proc.child.kill('SIGCONT');
  await eventually('all copies are there', () => seen.length >= 150, { timeoutMs: 20_000 });
  await eventually('the frozen one knows', async () => !(await leads(leader)));
  await pause(500); // nothing more may happen
  stop();
  assert.equal(seen.filter((e) => e.type === 'ADDED').length, 150);
  assert.equal(seen.filter((e) => e.type === 'DELETED').length, 0);
  t.diagnostic(`frozen after ${early} of 150 copies`);
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

async function away(t, how) {
  const { etcd, servers } = await trio(2);
  await leaderOf(servers);
  const acked = new Map();
  const refused = new Map();
  let over = false;
  const told = [];
  const { body: before } = await call(servers[1].admin, 'GET', MAPS);
  const unwatch = watch(servers[1].admin, `${MAPS}?watch=true&resourceVersion=${before.metadata.resourceVersion}`, told);
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
  // One watch, open all the time, was told of all of it, once and in order.
  const added = () => new Map(told.filter((e) => e.type === 'ADDED').map((e) => [e.object.metadata.name, e.object.metadata.resourceVersion]));
  await eventually('the watcher has caught up', () => [...acked].every(([name, { resourceVersion }]) => added().get(name) === resourceVersion));
  unwatch();
  const revisions = told.map((e) => Number(e.object.metadata.resourceVersion));
  assert.ok(revisions.every((r, i) => i === 0 || r > revisions[i - 1]), 'events out of order or twice');
  for (const status of refused.values()) assert.ok([503, 504].includes(status), `refused with ${status}`);
  assert.ok(refused.size > 0);
  for (const s of servers) {
    const { body: list } = await call(s.admin, 'GET', MAPS);
    const maps = new Map(list.items.map((o) => [o.metadata.name, o.metadata]));
    for (const [name, metadata] of acked) assert.equal(maps.get(name)?.resourceVersion, metadata.resourceVersion, `${name} was acknowledged`);
    for (const name of maps.keys()) assert.ok(acked.has(name) || refused.has(name) || !/^w/.test(name), name);
  }
  t.diagnostic(`${how}: ${acked.size} acknowledged, ${refused.size} refused`);
}

it('etcd killed and started again, and another one frozen, for 10 s under load: what was acknowledged is there, servers refuse meanwhile and recover', async (t) => {
  await Promise.all([away(t, 'killed'), away(t, 'frozen')]);
});
