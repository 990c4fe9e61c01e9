// Nothing acknowledged is lost: the server is killed, or told to end, while real clients write.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import https from 'node:https';
import { Fleet } from './lib/atoll.mjs';

const WORKERS = 12;
const ROUNDS = 5;
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

// One client: makes objects and counts in one of its own, and remembers what was acknowledged.
async function work(api, id, round, acked) {
  const counter = `${MAPS}/counter-${id}`;
  for (let i = 0; ; i++) {
    const name = `w${id}-${round}-${i}`;
    const made = await api.call('POST', MAPS, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { i: `${i}` } });
    assert.equal(made.status, 201, JSON.stringify(made.object));
    acked.made.set(name, made.object.metadata);
    const n = (acked.counters.get(id) ?? 0) + 1;
    acked.sent.set(id, n);
    const counted = await api.call('PATCH', counter, { data: { n: `${n}` } }, 'application/merge-patch+json');
    assert.equal(counted.status, 200, JSON.stringify(counted.object));
    acked.counters.set(id, n);
    if (i % 5 === 4) {
      const gone = await api.call('DELETE', `${MAPS}/${name}`);
      assert.equal(gone.status, 200, JSON.stringify(gone.object));
      acked.made.delete(name);
      acked.gone.add(name);
    }
  }
}

const newest = (acked) => Math.max(0, ...[...acked.made.values()].map((m) => Number(m.resourceVersion)));

async function verify(api, acked) {
  const { object: list } = await api.call('GET', MAPS);
  const maps = new Map(list.items.map((o) => [o.metadata.name, o]));
  for (const [name, metadata] of acked.made) {
    // A DELETE whose answer was lost may have been carried out.
    if (!maps.has(name) && acked.unsure(name)) continue;
    assert.equal(maps.get(name)?.metadata.uid, metadata.uid, `${name} was acknowledged and is not there`);
    assert.equal(maps.get(name).metadata.resourceVersion, metadata.resourceVersion);
  }
  for (const name of acked.gone) assert.ok(!maps.has(name), `${name} was deleted and is there again`);
  for (const [id, n] of acked.counters) {
    const value = Number(maps.get(`counter-${id}`).data.n);
    assert.ok(value >= n && value <= acked.sent.get(id), `counter ${id}: ${value}, acknowledged ${n}, sent ${acked.sent.get(id)}`);
    acked.counters.set(id, value);
  }
  assert.ok(Number(list.metadata.resourceVersion) >= newest(acked), 'the revision went back');
  return { rv: list.metadata.resourceVersion, maps };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function newAcked(api) {
  const acked = { made: new Map(), gone: new Set(), counters: new Map(), sent: new Map() };
  acked.unsure = (name) => Number(name.split('-')[2]) % 5 === 4;
  for (let id = 0; id < WORKERS; id++) {
    const r = await api.call('POST', MAPS, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: `counter-${id}` }, data: { n: '0' } });
    assert.equal(r.status, 201);
  }
  return acked;
}

fleet.it('kill -9 under load loses no acknowledged write, and watches resume', async (t) => {
  const server = await fleet.server();
  let api = await Api.of(server);
  const acked = await newAcked(api);
  for (let round = 0; round < ROUNDS; round++) {
    const { rv } = await verify(api, acked);
    const events = [];
    const watching = api.watch(MAPS, rv, events);
    const workers = Array.from({ length: WORKERS }, (_, id) => work(api, id, round, acked).catch((e) => e));
    await pause(150 + Math.random() * 600);
    server.proc.child.kill('SIGKILL');
    await server.proc.exited;
    for (const e of await Promise.all(workers)) assert.ok(e instanceof Error && !(e instanceof assert.AssertionError), e.stack);
    await watching;
    await server.start();
    api = await Api.of(server);
    const after = await verify(api, acked);

    // What the watcher saw, and what it gets from where it was cut off, is the whole story.
    const seen = Number(events.at(-1)?.object.metadata.resourceVersion ?? rv);
    assert.ok(seen <= Number(after.rv), 'a watcher saw what is not there');
    const mark = `mark-${round}`;
    const marked = await api.call('POST', MAPS, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: mark } });
    await api.watch(MAPS, seen, events, (all) => all.at(-1)?.object.metadata.name === mark);
    assert.equal(events.pop().object.metadata.uid, marked.object.metadata.uid);
    const revisions = events.map((e) => Number(e.object.metadata.resourceVersion));
    assert.ok(revisions.every((r, i) => i === 0 || r > revisions[i - 1]), 'events out of order or twice');
    const story = new Map();
    for (const e of events) {
      if (e.type === 'DELETED') story.delete(e.object.metadata.name);
      else story.set(e.object.metadata.name, e.object.metadata.resourceVersion);
    }
    for (const [name, version] of story) assert.equal(after.maps.get(name)?.metadata.resourceVersion, version, name);
    t.diagnostic(`round ${round}: ${acked.made.size} objects, ${events.length} events`);
  }
});

fleet.it('a server told to end under load answers or refuses, and keeps what it acknowledged', async () => {
  const server = await fleet.server();
  let api = await Api.of(server);
  const acked = await newAcked(api);
  for (let round = 0; round < 3; round++) {
    const watching = api.watch(MAPS, 0, []);
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
