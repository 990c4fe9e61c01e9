// Stores backed up, put back, moved and looked at, with the real binary.
import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { open, readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, Fleet, configMap, deployment, eventually, run, site } from './lib/atoll.mjs';
import { Cluster } from './lib/cluster.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';
import { call, credentials } from './lib/rest.mjs';

const WORKERS = 6;
const MAPS = '/api/v1/namespaces/default/configmaps';

const fleet = new Fleet();
const atoll = (...args) => run(ATOLL, args);

async function ok(...args) {
  const r = await atoll(...args);
  assert.equal(r.code, 0, `atoll ${args.join(' ')}\n${r.out}\n${r.err}`);
  return r;
}

async function fails(code, pattern, ...args) {
  const r = await atoll(...args);
  assert.equal(r.code, code, `atoll ${args.join(' ')}\n${r.out}\n${r.err}`);
  assert.match(r.out + r.err, pattern);
}

// Makes objects, and takes every fourth away again, until told to end.
async function work(admin, id, acked, go) {
  for (let i = 0; go.on; i++) {
    const name = `w${id}-${i}`;
    const made = await call(admin, 'POST', MAPS, configMap(name, { i: `${i}` }));
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const { uid, resourceVersion } = made.body.metadata;
    acked.set(name, { uid, rv: Number(resourceVersion), gone: i % 4 === 3 });
    if (i % 4 === 3) {
      const gone = await call(admin, 'DELETE', `${MAPS}/${name}`);
      assert.equal(gone.status, 200, JSON.stringify(gone.body));
      acked.get(name).deleted = true;
    }
  }
}

// What a watch from resourceVersion begins with: an HTTP status, or the code of its first error event.
async function watchFrom(admin, rv) {
  const r = await call(admin, 'GET', `${MAPS}?watch=true&resourceVersion=${rv}&timeoutSeconds=2`);
  const first = r.body.object ?? r.body;
  return r.status === 200 && first.kind === 'Status' ? first.code : r.status;
}

fleet.it('a backup taken under load comes up elsewhere with all that was acknowledged, and agents go on', async (t) => {
  const c = await Cluster.start(fleet, { n1: 'edge' });
  const file = path.join(await fleet.dir('atoll-backup'), 'backup');
  const acked = new Map();
  const go = { on: true };
  const workers = Array.from({ length: WORKERS }, (_, id) => work(c.admin, id, acked, go));
  await eventually('there is load', () => acked.size > 60);
  const before = new Map([...acked].map(([name, o]) => [name, { ...o }]));
  assert.ok([...before.values()].some((o) => o.deleted));
  const made = await c.server.atoll(['backup', file]);
  assert.equal(made.code, 0, made.err);
  const after = acked.size;
  await eventually('the load goes on', () => acked.size > after + 30);
  go.on = false;
  await Promise.all(workers);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const { revision } = JSON.parse((await readFile(file, 'utf8')).split('\n', 1)[0]);
  const newest = Math.max(...[...acked.values()].map((o) => o.rv));
  for (const [name, { rv }] of before) assert.ok(rv <= revision, `${name} was acknowledged before the backup and is not in it`);
  assert.ok(newest > revision, 'the load outlived the backup');

  await c.server.proc.kill('SIGKILL');
  const state = path.join(await fleet.dir('atoll-elsewhere'), 'state');
  await ok('restore', file, '--state', state);
  await ok('store', 'check', '--state', state);
  c.server = await fleet.server({ state, listen: c.server.listen, args: ['--node-timeout', '3s'] });

  const list = (await call(c.url, 'GET', MAPS)).body;
  const maps = new Map(list.items.map((o) => [o.metadata.name, o.metadata.uid]));
  let held = 0;
  for (const [name, o] of acked) {
    if (o.gone) {
      if (before.get(name)?.deleted) assert.ok(!maps.has(name), `${name} was deleted before the backup and is back`);
      continue;
    }
    assert.equal(maps.get(name), o.rv <= revision ? o.uid : undefined, `${name} of revision ${o.rv}, backup of ${revision}`);
    held += o.rv <= revision ? 1 : 0;
  }
  t.diagnostic(`${held} objects of revision ${revision}; ${acked.size} were made up to ${newest}`);

  // Nobody goes on across the restore as if nothing had been: neither from before the backup nor from after it.
  for (const rv of [revision - 1, revision, revision + 1, newest]) assert.equal(await watchFrom(c.url, rv), 410, `watch from ${rv}`);
  assert.equal(await watchFrom(c.url, list.metadata.resourceVersion), 200);
  const next = await call(c.url, 'POST', MAPS, configMap('next'));
  assert.ok(Number(next.body.metadata.resourceVersion) > newest, 'the revision went back');

  // The agent never stopped: its certificate is of the same authority.
  await c.server.apply([deployment('app', { replicas: 1 })]);
  await c.ready('app');
  assert.equal((await c.instances('app'))[0].spec.nodeName, 'n1');
});

fleet.it('a backup that is damaged, cut off or of something else is refused, and leaves nothing behind', async () => {
  const server = await fleet.server();
  const dir = await fleet.dir('atoll-backup');
  const file = path.join(dir, 'backup');
  const state = path.join(dir, 'state');
  await server.apply([site('a')]);
  const made = await server.atoll(['backup', file]);
  assert.equal(made.code, 0, made.err);
  const text = await readFile(file, 'utf8');
  const bad = path.join(dir, 'bad');
  for (const [damage, why] of [
    [text.replace('"EU', '"US'), /line \d+: the digest is another/],
    [text.slice(0, -30), /line \d+: the file is cut off here/],
    [text.replace('\n', '\n{"file":"../x","text":""}\n'), /line 2: the file's name cannot be/],
    ['hello\n', /line 1: this is no backup/],
    ['', /empty/],
  ]) {
    await writeFile(bad, damage);
    await fails(2, why, 'restore', bad, '--state', state);
    assert.ok(!existsSync(state));
  }
  await fails(5, /not empty/, 'restore', file, '--state', dir);
  await fails(4, /no-such-file/, 'restore', path.join(dir, 'no-such-file'), '--state', state);
  await fails(2, /which and where/, 'restore', file);
  // Not to everybody, and not in place of what was there before it is complete.
  const stranger = await credentials(server.kubeconfig);
  assert.equal((await call({ url: stranger.url, ca: stranger.ca }, 'GET', '/admin/v1/backup')).status, 401);
  await server.stop();
  assert.notEqual((await server.atoll(['backup', file])).code, 0);
  assert.equal(await readFile(file, 'utf8'), text);
  assert.deepEqual((await readdir(dir)).sort(), ['backup', 'bad']);
});

fleet.it('a store moves by export and import, counts on, and is checked', async () => {
  const server = await fleet.server();
  const dir = await fleet.dir('atoll-move');
  const file = path.join(dir, 'dump');
  const state = path.join(dir, 'state');
  await server.apply([site('a'), ...Array.from({ length: 30 }, (_, i) => configMap(`m${i}`, { text: 'x'.repeat(1000) }))]);
  const was = await server.get('site a');
  await fails(5, /atoll backup works with a live one/, 'store', 'export', file, '--state', server.state);
  await fails(5, /locked/, 'store', 'check', '--state', server.state);
  await server.stop();

  assert.match((await ok('store', 'check', '--state', server.state)).out, /^sound: \d+ keys/);
  await ok('store', 'export', file, '--state', server.state);
  const { revision } = JSON.parse((await readFile(file, 'utf8')).split('\n', 1)[0]);
  await ok('store', 'import', file, '--state', state);
  await fails(5, /there already/, 'store', 'import', file, '--state', state);
  await fails(2, /no certificate authority/, 'restore', file, '--state', path.join(dir, 'x'));
  const moved = await fleet.server({ state });
  const is = await moved.get('site a');
  assert.equal(is.metadata.uid, was.metadata.uid);
  assert.deepEqual(is.spec, was.spec);
  assert.ok(Number(is.metadata.resourceVersion) > revision);
  assert.equal(await watchFrom(await credentials(moved.kubeconfig), was.metadata.resourceVersion), 410);
  await moved.stop();

  const db = await open(path.join(state, 'atoll.db'), 'r+');
  await db.write(Buffer.alloc(4096, 0x55), 0, 4096, 8192);
  await db.close();
  await fails(1, /problem: /, 'store', 'check', '--state', state);
  await fails(4, /there is no store/, 'store', 'check', '--state', path.join(dir, 'nowhere'));
  assert.ok(!existsSync(path.join(dir, 'nowhere')));
});

fleet.it('a backup comes up on etcd and moves back to SQLite, and revisions only grow', async () => {
  const dir = await fleet.dir('atoll-etcd');
  const file = path.join(dir, 'backup');
  const first = await fleet.server();
  await first.apply([site('a'), configMap('m')]);
  const was = await first.get('site a');
  assert.equal((await first.atoll(['backup', file])).code, 0);
  await first.stop();

  const etcd = await Etcd.start(fleet);
  const store = `etcd:${etcd.url}`;
  const state = path.join(dir, 'etcd');
  await ok('restore', file, '--state', state, '--store', store);
  await fails(5, /not empty/, 'store', 'import', file, '--store', store);
  await ok('store', 'check', '--store', store);
  const second = await fleet.server({ state, args: ['--store', store] });
  const admin = await credentials(second.kubeconfig);
  const is = await second.get('site a');
  assert.equal(is.metadata.uid, was.metadata.uid);
  assert.ok(Number(is.metadata.resourceVersion) > Number(was.metadata.resourceVersion) + 1_000_000_000);
  assert.equal(await watchFrom(admin, was.metadata.resourceVersion), 410);
  // Compare-and-swap by the revisions shown, over a restart; by one of the old store it is refused.
  const target = `${MAPS}/m`;
  const { body: map } = await call(admin, 'GET', target);
  const put = async (resourceVersion) => (await call(admin, 'PUT', target, { ...map, metadata: { ...map.metadata, resourceVersion } })).status;
  assert.equal(await put('4'), 409);
  await second.restart();
  assert.equal((await call(admin, 'GET', target)).body.metadata.resourceVersion, map.metadata.resourceVersion);
  assert.equal((await call(admin, 'PATCH', target, { data: { a: 'b' } }, { 'Content-Type': 'application/merge-patch+json' })).status, 200);
  assert.equal(await put(map.metadata.resourceVersion), 409);
  // A backup of the live server under load holds all that was acknowledged before it.
  const acked = new Map();
  const go = { on: true };
  const workers = Array.from({ length: 3 }, (_, id) => work(admin, id, acked, go));
  await eventually('there is load', () => acked.size > 30);
  const before = [...acked].filter(([, o]) => !o.gone).map(([name, { rv }]) => [name, rv]);
  const live = path.join(dir, 'live');
  assert.equal((await second.atoll(['backup', live])).code, 0);
  go.on = false;
  await Promise.all(workers);
  const text = await readFile(live, 'utf8');
  const { revision } = JSON.parse(text.split('\n', 1)[0]);
  for (const [name, rv] of before) assert.ok(rv <= revision && text.includes(`/configmaps/default/${name}"`), `${name} was acknowledged before the backup`);
  const last = Number((await call(admin, 'GET', target)).body.metadata.resourceVersion);
  assert.ok(last > Number(map.metadata.resourceVersion));
  await second.stop();

  await ok('store', 'export', path.join(dir, 'dump'), '--store', store);
  await ok('store', 'import', path.join(dir, 'dump'), '--state', path.join(dir, 'back'));
  await ok('store', 'check', '--state', path.join(dir, 'back'));
  const third = await fleet.server({ state: path.join(dir, 'back') });
  const end = await third.get('configmap m');
  assert.deepEqual(end.data, { a: 'b' });
  assert.ok(Number(end.metadata.resourceVersion) > last);
}, { skip: ETCD_MISSING });
