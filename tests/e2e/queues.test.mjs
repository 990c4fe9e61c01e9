// Queues, reservations and moves with a real server and real agents.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Cluster, web, webRoot } from './lib/cluster.mjs';
import { eventually, Fleet } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;
let root;

before(async () => {
  c = await Cluster.start(fleet, { 'one-1': 'one', 'two-1': 'two' });
  root = await webRoot(fleet, 'here');
});

const queue = (name, cpu) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Queue',
  metadata: { name },
  spec: { cohort: 'research', quotas: [{ resources: [{ name: 'cpu', nominal: cpu }] }] },
});
const of = (name, replicas, spec) => web(name, c, { replicas, root, cpu: '100m', spec });
const placed = async (owner) => (await c.instances(owner)).filter((i) => i.spec.nodeName && !i.metadata.deletionTimestamp);
const events = async (reason) => (await c.server.get('events')).items.filter((e) => e.reason === reason);

it('two teams lend each other what they do not use, and take it back with grace', async () => {
  await c.server.apply([queue('team-a', '300m'), queue('team-b', '200m')]);
  await c.server.apply(of('b', 6, { queue: 'team-b' }));
  await eventually('b borrows all there is', async () => (await placed('b')).length === 5);
  const held = await eventually('the sixth is told why', async () => (await c.instances('b')).find((i) => i.status?.reason === 'QuotaExhausted'));
  assert.equal(held.status.decision.message, 'queue team-b: 500m of 200m cpu used, 100m wanted, nothing to borrow in cohort research');
  await eventually('the queue shows it', async () => /team-b\s+research\s+1\s+5\s+cpu 500m\/200m\s+cpu 300m/.test(await c.server.k('get queues')));

  await c.server.apply(of('a', 2, { queue: 'team-a' }));
  await c.ready('a');
  assert.equal((await placed('a')).length, 2);
  await eventually('b keeps what is left', async () => (await placed('b')).length === 3);
  const reclaimed = await events('Reclaimed');
  assert.equal(reclaimed.length, 2);
  assert.match(reclaimed[0].message, /^queue team-a takes back for default\/a-\S+ what it lent to queue team-b$/);
  await c.server.k('delete deployment a');
  await eventually('b borrows again', async () => (await placed('b')).length === 5);
  await c.server.k('delete deployment b');
  await c.server.k('delete queue team-a team-b');
});

it('a bad quota is refused by field', async () => {
  const bad = queue('bad', 'lots');
  await c.server.kFails(['apply', '-f', '-'], /spec\.quotas\[0\]\.resources\[0\]\.nominal/, { input: JSON.stringify(bad) });
});

it('a reservation holds its node for its time', async () => {
  await c.server.k('create namespace night');
  await c.server.apply(of('day', 2));
  await c.ready('day');
  const from = Date.now() + 2500;
  await c.server.apply({
    apiVersion: 'atoll.dev/v1',
    kind: 'Reservation',
    metadata: { name: 'night' },
    spec: { from: new Date(from).toISOString(), to: new Date(from + 4500).toISOString(), nodes: ['one-1'], namespaces: ['night'] },
  });
  const phase = async () => (await c.server.get('reservation night')).status?.phase;
  await eventually('it is seen', async () => (await phase()) === 'Scheduled');
  await eventually('its node is empty at the start', async () => (await phase()) === 'Active' && (await placed('day')).every((i) => i.spec.nodeName === 'two-1'));
  await c.server.apply({ ...of('own', 1), metadata: { name: 'own', namespace: 'night' } });
  await eventually('its namespace is drawn there', async () => (await placed('own')).some((i) => i.spec.nodeName === 'one-1'));
  await eventually('it ends', async () => (await phase()) === 'Expired');
  await c.server.k('delete deployment day');
  await c.server.k('delete namespace night');
});

it('a move is proposed, and made with nobody missing', async () => {
  await c.server.apply(of('moved', 2));
  await c.ready('moved');
  const policy = (mode) => ({
    apiVersion: 'atoll.dev/v1',
    kind: 'Policy',
    metadata: { name: 'moves' },
    spec: { rescheduling: { mode, interval: '1s', coolDown: '1s' } },
  });
  await c.server.apply(policy('Propose'));
  await c.server.k(['patch', 'node', 'one-1', '--type=merge', '-p', JSON.stringify({ spec: { taints: [{ key: 'old', effect: 'NoSchedule' }] } })]);
  const [proposal] = await eventually('it is proposed', async () => {
    const found = await events('MoveProposed');
    return found.length > 0 && found;
  });
  assert.match(proposal.message, /^from one-1 to two-1: it may not run where it is; gains /);
  assert.equal((await placed('moved')).filter((i) => i.spec.nodeName === 'one-1').length, 1);
  const shown = await c.server.atoll('plan moves');
  assert.match(shown.out, /^NAMESPACE +INSTANCE +FROM +TO +REASON +GAIN +COST\ndefault +moved-\S+ +one-1 +two-1 +EndsViolation +\d/);
  const plan = JSON.parse((await c.server.atoll('plan moves -o json')).out);
  assert.equal(plan.moves.length, 1);
  assert.equal(plan.moves[0].to, 'two-1');

  let least = 2;
  let done = false;
  const watch = (async () => {
    while (!done) {
      const ready = (await c.instances('moved')).filter((i) => i.status?.ready && !i.metadata.deletionTimestamp);
      least = Math.min(least, ready.length);
    }
  })();
  await c.server.apply(policy('Automatic'));
  await eventually('it is made', async () => {
    const all = await placed('moved');
    return all.length === 2 && all.every((i) => i.spec.nodeName === 'two-1' && i.status.ready);
  });
  done = true;
  await watch;
  assert.equal(least, 2);
  assert.match((await c.server.atoll('plan moves')).out, /^no move pays for itself/);
});
