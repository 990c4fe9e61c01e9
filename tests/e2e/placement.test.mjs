// Why here, why nowhere: real agents with pretend devices, pending work that is told why and runs when what it waits
// for changes.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { eventually, Fleet, site } from './lib/atoll.mjs';
import { call } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;

before(async () => {
  const links = ['a', 'b', 'b', 'a'];
  const devices = {
    'edge-1': await fleet.file('edge.json', JSON.stringify({
      capacity: { cpu: '4', memory: '8Gi' },
      gpus: links.map((linkGroup, i) => ({ id: `g${i}`, model: 'A10', memory: '24Gi', linkGroup, numaNode: Math.floor(i / 2) })),
      numaNodes: [0, 1].map((id) => ({ id, cpus: `${id * 2}-${id * 2 + 1}`, cpu: '2', memory: '4Gi' })),
    })),
    'cloud-1': await fleet.file('cloud.json', JSON.stringify({ capacity: { cpu: '4', memory: '8Gi' }, gpus: [] })),
  };
  c = await Cluster.start(fleet, { 'edge-1': 'edge', 'cloud-1': 'cloud' }, { devices });
});

const sleeper = (name, resources, { replicas = 1, labels = {}, placement = {}, ...spec } = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Deployment',
  metadata: { name, namespace: 'default' },
  spec: { replicas, template: { metadata: { labels }, spec: { command: ['sleep', '1000'], env: [{ name: 'MARK', value: c.mark }], resources, placement, terminationGracePeriod: '1s', ...spec } } },
});

async function explain(object, args = []) {
  const r = await c.server.atoll(['explain', 'placement', object, ...args]);
  assert.equal(r.code, 0, r.err);
  return r.out;
}
const explained = async (object) => JSON.parse(await explain(object, ['-o', 'json']));

async function pending(name, pattern) {
  return eventually(`${name} is pending: ${pattern}`, async () => {
    const told = await explained(`deployment/${name}`);
    const d = told.instances[0]?.decision;
    return d && d.state !== 'Placed' && pattern.test(`${d.message}; ${d.nearest}`) && told.instances[0];
  });
}
async function placed(name) {
  return eventually(`${name} is placed`, async () => {
    const told = await explained(`deployment/${name}`);
    return told.instances.length > 0 && told.instances.every((i) => i.node !== '' && i.decision?.state === 'Placed') && told.instances;
  });
}
async function gone(name) {
  await c.server.k(`delete deployment ${name}`);
  await eventually(`${name} has gone`, async () => (await c.instances(name)).length === 0);
}
async function eventsOf(name, reason) {
  const list = (await call(c.url, 'GET', '/api/v1/namespaces/default/events')).body.items;
  return list.filter((e) => e.involvedObject.name === name && e.reason === reason);
}
async function undecided() {
  const { out } = await c.server.kubectl('get --raw /metrics');
  return Number(/^atoll_scheduler_decisions_total\{[^}]*"pending"[^}]*\} (\d+)$/m.exec(out)[1]);
}

it('what is pending says what is missing least, and runs once there is room', async () => {
  await c.server.apply(sleeper('filler', { cpu: '3' }, { replicas: 2 }));
  await placed('filler');
  await c.server.apply(sleeper('late', { cpu: '2' }));
  const one = await pending('late', /lacks 1 cpu/);
  const d = one.decision;
  assert.deepEqual(d.refusals.map((r) => [r.rule, r.nodes]), [['NotEnoughCPU', 2]]);
  assert.deepEqual(d.waitsFor, ['NodeChange', 'RoomFreed']);
  assert.equal(d.nodes, 2);
  assert.equal(d.remedies[0].kind, 'Capacity');
  assert.ok(d.remedies.some((r) => r.message === '1 node more with 2 cpu would do'), JSON.stringify(d.remedies));
  const text = await explain('deployment/late');
  assert.match(text, /^Deployment default\/late: 0 of 1 instance placed\n/);
  assert.match(text, /: pending, 0 of 2 nodes fit: /);
  assert.match(text, /\nnearest: (cloud|edge)-1 lacks 1 cpu\n/);
  assert.match(text, /REFUSED BY +NODES +FOR EXAMPLE\nNotEnoughCPU +2 +/);
  assert.match(text, /WOULD HELP +HOW\nCapacity +/);
  assert.match(text, /tried again after: NodeChange, RoomFreed\n/);
  const events = await eventsOf(one.name, 'FailedScheduling');
  assert.equal(events.length, 1);
  assert.match(events[0].message, /^0 of 2 nodes fit: .*; (cloud|edge)-1 lacks 1 cpu$/);

  // What it does not wait for makes nobody decide again.
  const before = await undecided();
  await c.server.k('label node cloud-1 rack=7');
  await c.server.k('annotate node edge-1 note=x');
  await c.server.apply(site('cloud', { prices: { cpuHour: '0.5' }, carbonIntensity: 300 }));
  await c.server.apply(sleeper('tiny', { cpu: '100m' }));
  await placed('tiny');
  await gone('tiny');
  assert.equal(await undecided(), before);

  // Another reason is another Event; the old reason again is counted on the old Event.
  await c.server.k(['patch', 'node', 'cloud-1', '--type=merge', '-p', '{"spec":{"unschedulable":true}}']);
  await eventually('a second reason', async () => (await eventsOf(one.name, 'FailedScheduling')).length === 2);
  await c.server.k(['patch', 'node', 'cloud-1', '--type=merge', '-p', '{"spec":{"unschedulable":false}}']);
  await pending('late', /2 NotEnoughCPU/);
  assert.equal((await eventsOf(one.name, 'FailedScheduling')).length, 2);

  await c.server.k('scale deployment filler --replicas=1');
  const [now] = await placed('late');
  assert.equal((await eventsOf(now.name, 'Scheduled')).length, 1);
});

it('what runs shows the score of its node beside that of the next best one', async () => {
  await gone('filler');
  await c.server.apply(sleeper('cheap', { cpu: '1' }, { placement: { weights: { price: 50, balance: 5, spread: 0, carbon: 0, fit: 0 } } }));
  const [one] = await placed('cheap');
  const d = one.decision;
  assert.deepEqual(d.parts.map((p) => [p.name, p.weight]), [['price', 50], ['balance', 5]]);
  const mean = (key) => Math.trunc(d.parts.reduce((sum, p) => sum + p.weight * p[key], 0) / 55);
  assert.equal(d.score, mean('score'));
  assert.equal(d.runnerUpScore, mean('runnerUp'));
  const text = await explain(`instance/${one.name}`);
  assert.match(text, new RegExp(`^default/${one.name}: placed, on ${one.node} at site ${one.site}\n`));
  assert.match(text, new RegExp(`OBJECTIVE +WEIGHT +${one.node} +${d.runnerUp}\nprice +50 +\\d+ +\\d+\nbalance +5 +\\d+ +\\d+\nweighted mean +${d.score} +${d.runnerUpScore}\n`));
  assert.equal(await explain(`${one.name}`), text); // a bare name is an instance
  assert.match(await explain('deployment/cheap', ['-o', 'yaml']), /\n {4}state: Placed\n|\n {6}state: Placed\n/);
  assert.equal((await explain('deployment/cheap', ['-o', 'name'])).trim(), `instance.atoll.dev/${one.name}`);
  assert.equal((await explain('deployment/cheap', ['-o', 'jsonpath={.instances[0].decision.score}'])).trim(), String(d.score));
  await gone('cheap');
  await gone('late');
});

it('names the taint, the label and the request that is too large for every node', async () => {
  await c.server.apply(sleeper('picky', { cpu: '100m' }, { placement: { nodeAffinity: { required: [{ matchExpressions: [{ key: 'disk', operator: 'In', values: ['ssd'] }] }] } } }));
  await pending('picky', /on (cloud|edge)-1 only one thing is in the way: label disk is absent, wanted disk in \(ssd\)/);
  await c.server.k('label node cloud-1 disk=ssd');
  assert.equal((await placed('picky'))[0].node, 'cloud-1');
  await gone('picky');

  await c.server.k(['patch', 'node', 'edge-1', '--type=merge', '-p', '{"spec":{"taints":[{"key":"quiet","effect":"NoSchedule"}]}}']);
  await c.server.apply(sleeper('gpus', { gpu: '2', topology: 'SameLink' }));
  const one = await pending('gpus', /without the taint quiet it would fit on 1 node/);
  assert.ok(one.decision.remedies.some((r) => r.kind === 'Taint' && r.nodes === 1));
  await c.server.k(['patch', 'node', 'edge-1', '--type=merge', '-p', '{"spec":{"taints":[]}}']);
  await placed('gpus');
  const [instance] = await c.instances('gpus');
  assert.deepEqual(instance.status.gpus.map((g) => g.index), [0, 3]); // link group a
  await gone('gpus');

  await c.server.apply(sleeper('huge', { cpu: '64' }));
  const huge = await pending('huge', /no node is large enough, even when empty: the largest has 4 cpu, 64 wanted/);
  assert.equal(huge.decision.state, 'NeverFits');
  assert.equal((await c.get('instances', huge.name)).status.reason, 'NeverFits');
  assert.match(await explain('deployment/huge'), /: can never fit, 0 of 2 nodes fit/);
  await gone('huge');
});

it('copies keep apart, and what is pending is told the rule of those that are there', async () => {
  const apart = { antiAffinity: { required: [{ labelSelector: { matchLabels: { app: 'lone' } }, topology: 'site' }] } };
  await c.server.apply(sleeper('lone', { cpu: '100m' }, { replicas: 3, labels: { app: 'lone' }, placement: apart }));
  const told = await eventually('two placed, one pending', async () => {
    const t = await explained('deployment/lone');
    return t.instances.filter((i) => i.decision?.state === 'Placed').length === 2 && t.instances.find((i) => i.decision?.state === 'Waiting');
  });
  assert.deepEqual(told.decision.refusals.map((r) => [r.rule, r.nodes]), [['AntiAffinity', 2]]);
  assert.deepEqual(told.decision.waitsFor, ['NodeChange', 'RoomFreed', 'SiteChange']);
  await c.server.apply(site('far'));
  await c.join('far-1', 'far');
  await placed('lone');
  await gone('lone');
});

it('a wrong object is refused with what to do instead', async () => {
  const none = await c.server.atoll('explain placement deployment/none');
  assert.equal(none.code, 4);
  assert.match(none.err, /"none" not found/);
  const wrong = await c.server.atoll('explain placement site/edge');
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /a site is not placed: name an instance, a deployment or a job/);
  const help = await c.server.atoll('explain --help');
  assert.match(help.out, /atoll explain placement deployment\/digits\n {2}atoll explain placement instance\/digits-x1y2z-abcde -o yaml\n/);
});
