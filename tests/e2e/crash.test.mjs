// Nothing acknowledged is lost: the server is killed, or told to end, while real clients write.
import assert from 'node:assert/strict';
import { open, readFile } from 'node:fs/promises';
import https from 'node:https';
import path from 'node:path';
import { configMap, Fleet, run, ATOLL } from './lib/atoll.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';

const WORKERS = 12;
const ROUNDS = Number(process.env.ATOLL_CRASH_ROUNDS ?? 50);
const WRITES = 10_000; // in all rounds together, and all acknowledged
const MAPS = '/api/v1/namespaces/default/configmaps';

const fleet = new Fleet();

class Api {
  constructor(url, credentials) {
    this.url = url;
    this.agent = new https.Agent({ keepAlive: true, ...credentials });
  }

  static async of(server) {
    const text = await readFile(server.kubeconfig, 'utf8');
    const part = (key) => Buffer.from(new RegExp(`${key}-data: (\\S+)`).exec(text)[1], 'base64');
    return new Api(server.url, { ca: part('certificate-authority'), cert: part('client-certificate'), key: part('client-key') });
  }

  // Rejects when no whole answer came.
  call(method, path, body, contentType = 'application/json') {
    return new Promise((resolve, reject) => {
      const req = https.request(this.url + path, { method, agent: this.agent, headers: body ? { 'content-type': contentType } : {} }, (res) => {
        let text = '';
        res.on('data', (d) => (text += d));
        res.on('aborted', () => reject(new Error('aborted')));
        res.on('error', reject);
        res.on('end', () => (res.complete ? resolve({ status: res.statusCode, object: JSON.parse(text) }) : reject(new Error('cut off'))));
      });
      req.on('error', reject);
      req.end(body && JSON.stringify(body));
    });
  }

  // Events after resourceVersion until the connection ends or done(events) says enough.
  watch(path, resourceVersion, events, done = () => false) {
    return new Promise((resolve) => {
      const query = `?watch=true&resourceVersion=${resourceVersion}`;
      const req = https.request(this.url + path + query, { agent: this.agent }, (res) => {
        let rest = '';
        res.on('data', (d) => {
          const lines = (rest + d).split('\n');
          rest = lines.pop();
          for (const line of lines) events.push(JSON.parse(line));
          if (done(events)) req.destroy();
        });
        res.on('error', () => {});
        res.on('close', resolve);
      });
      req.on('error', resolve);
      req.end();
    });
  }
}

// One client: makes objects, counts in one of its own and takes most objects away again, and remembers what was
// acknowledged. Ends when its server does.
async function work(api, id, round, acked) {
  const counter = `${MAPS}/counter-${id}`;
  const done = (r, status) => {
    assert.equal(r.status, status, JSON.stringify(r.object));
    acked.writes++;
    acked.onWrite?.();
    return r.object.metadata;
  };
  for (let i = 0; ; i++) {
    const name = `w${id}-${round}-${i}`;
    const made = done(await api.call('POST', MAPS, configMap(name, { i: `${i}` })), 201);
    acked.made.set(name, made);
    acked.revisions.push(made.resourceVersion);
    const n = (acked.counters.get(id) ?? 0) + 1;
    acked.sent.set(id, n);
    const counted = done(await api.call('PATCH', counter, { data: { n: `${n}` } }, 'application/merge-patch+json'), 200);
    acked.counters.set(id, n);
    acked.revisions.push(counted.resourceVersion);
    if (i % 10 !== 9) {
      acked.going.add(name);
      done(await api.call('DELETE', `${MAPS}/${name}`), 200);
      acked.going.delete(name);
      acked.made.delete(name);
      acked.gone.add(name);
    }
  }
}

async function verify(api, acked) {
  const { object: list } = await api.call('GET', MAPS);
  const maps = new Map(list.items.map((o) => [o.metadata.name, o]));
  for (const [name, metadata] of acked.made) {
    if (!maps.has(name) && acked.going.has(name)) { // a DELETE whose answer was lost, and that was carried out
      acked.made.delete(name);
      continue;
    }
    assert.equal(maps.get(name)?.metadata.uid, metadata.uid, `${name} was acknowledged and is not there`);
    assert.equal(maps.get(name).metadata.resourceVersion, metadata.resourceVersion);
  }
  acked.going.clear();
  for (const name of acked.gone) assert.ok(!maps.has(name), `${name} was deleted and is there again`);
  for (const [id, n] of acked.counters) {
    const value = Number(maps.get(`counter-${id}`).data.n);
    assert.ok(value >= n && value <= acked.sent.get(id), `counter ${id}: ${value}, acknowledged ${n}, sent ${acked.sent.get(id)}`);
    acked.counters.set(id, value);
  }
  const rv = Number(list.metadata.resourceVersion);
  assert.ok(rv >= acked.newest && acked.revisions.every((r) => Number(r) <= rv), 'the revision went back');
  acked.newest = rv;
  return maps;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function newAcked(api) {
  const acked = { made: new Map(), going: new Set(), gone: new Set(), counters: new Map(), sent: new Map(), revisions: [], writes: 0, newest: 0 };
  for (let id = 0; id < WORKERS; id++) {
    const r = await api.call('POST', MAPS, configMap(`counter-${id}`, { n: '0' }));
    assert.equal(r.status, 201);
  }
  return acked;
}

// Load on a server that is killed at a random point of each round. One watch over all rounds, taken up again where it
// was cut off, has to tell the whole story: nothing twice, nothing out of order, and every acknowledged write.
async function killRounds(t, server, rounds, writes) {
  let api = await Api.of(server);
  const acked = await newAcked(api);
  await verify(api, acked);
  const events = [];
  const from = acked.newest;
  const seen = () => Number(events.at(-1)?.object.metadata.resourceVersion ?? from);
  for (let round = 0; round < rounds; round++) {
    const watching = api.watch(MAPS, seen(), events);
    const until = acked.writes + Math.ceil((writes - acked.writes) / (rounds - round)) + Math.floor((Math.random() - 0.5) * (round === rounds - 1 ? 0 : (writes / rounds) * 1.6));
    const killed = new Promise((resolve) => {
      acked.onWrite = () => acked.writes >= until && resolve(server.proc.child.kill('SIGKILL'));
    });
    const ends = await Promise.all(Array.from({ length: WORKERS }, (_, id) => work(api, id, round, acked).catch((e) => e)));
    await killed;
    await server.proc.exited;
    for (const e of ends) assert.ok(e instanceof Error && !(e instanceof assert.AssertionError), e.stack);
    await watching;
    await server.start();
    api = await Api.of(server);
    assert.ok(seen() <= Number((await api.call('GET', `${MAPS}?limit=1`)).object.metadata.resourceVersion), 'a watcher saw what is not there');
    await verify(api, acked);
  }
  assert.ok(acked.writes >= writes, `${acked.writes} writes`);
  const mark = await api.call('POST', MAPS, configMap('mark'));
  await api.watch(MAPS, seen(), events, (all) => all.at(-1)?.object.metadata.name === 'mark');
  assert.equal(events.at(-1).object.metadata.uid, mark.object.metadata.uid);
  const told = events.map((e) => Number(e.object.metadata.resourceVersion));
  assert.ok(told.every((r, i) => i === 0 || r > told[i - 1]), 'events out of order or twice');
  const known = new Set(told);
  for (const r of acked.revisions) assert.ok(known.has(Number(r)), `the write of revision ${r} was never told`);
  const story = new Map();
  for (const e of events) {
    if (e.type === 'DELETED') story.delete(e.object.metadata.name);
    else story.set(e.object.metadata.name, e.object.metadata.resourceVersion);
  }
  const maps = await verify(api, acked);
  for (const [name, version] of story) assert.equal(maps.get(name)?.metadata.resourceVersion, version, name);
  for (const name of maps.keys()) assert.ok(story.has(name) || /^counter/.test(name), name);
  t.diagnostic(`${rounds} kills, ${acked.writes} acknowledged writes, ${events.length} events`);
}

fleet.it(`kill -9 at ${ROUNDS} points of ${WRITES} writes loses no acknowledged one, and one watch sees them all`, async (t) => {
  await killRounds(t, await fleet.server(), ROUNDS, WRITES);
}, { timeout: 240_000 });

// Fewer rounds, for the time that they take: etcd commits one by one.
fleet.it('kill -9 of a server on etcd, too', async (t) => {
  const etcd = await Etcd.start(fleet);
  await killRounds(t, await fleet.server({ args: ['--store', `etcd:${etcd.url}`] }), Math.ceil(ROUNDS / 5), WRITES / 5);
}, { skip: ETCD_MISSING });

fleet.it('a damaged database is refused at the start with its place, and kept', async () => {
  const server = await fleet.server();
  await server.apply(Array.from({ length: 20 }, (_, i) => configMap(`m${i}`, { text: 'x'.repeat(3000) })));
  await server.stop();
  const file = path.join(server.state, 'atoll.db');
  const db = await open(file, 'r+');
  const { size } = await db.stat();
  for (let at = 4096; at < size; at += 4096) await db.write(Buffer.alloc(2048, 0x55), 0, 2048, at);
  await db.close();
  const damaged = await readFile(file);
  const r = await run(ATOLL, ['server', '--state', server.state, '--listen', '127.0.0.1:0']);
  assert.notEqual(r.code, 0);
  assert.match(r.err, /atoll\.db.*(malformed|corrupt|damaged)/i);
  assert.match(r.err, /atoll restore/);
  assert.ok(damaged.equals(await readFile(file)));
});

fleet.it('a server told to end under load answers or refuses, and keeps what it acknowledged', async () => {
  const server = await fleet.server();
  let api = await Api.of(server);
  const acked = await newAcked(api);
  for (let round = 0; round < 3; round++) {
    const watching = api.watch(MAPS, 0, []);
    acked.onWrite = undefined;
    const workers = Array.from({ length: WORKERS }, (_, id) => work(api, id, round, acked).catch((e) => e));
    await pause(200);
    await server.stop(); // exit 0
    await Promise.all(workers);
    await watching;
    await server.start();
    api = await Api.of(server);
    await verify(api, acked);
  }
});
