// Nodes are lost under a gang that runs: it is whole again elsewhere, or given up and waits as a whole. Real agents.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Cluster, processesWith } from './lib/cluster.mjs';
import { eventually, Fleet } from './lib/atoll.mjs';
import { call } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;

before(async () => {
  const names = ['n1', 'n2', 'n3'];
  const file = await fleet.file('node.json', JSON.stringify({ capacity: { cpu: '4', memory: '8Gi' } }));
  c = await Cluster.start(fleet, Object.fromEntries(names.map((n) => [n, 'edge'])), { devices: Object.fromEntries(names.map((n) => [n, file])) });
  await c.server.apply({ // one fits on a node
    apiVersion: 'atoll.dev/v1',
    kind: 'Job',
    metadata: { name: 'train', namespace: 'default' },
    spec: {
      completions: 2, parallelism: 2, gangSize: 2,
      template: { spec: { command: ['sleep', '1000'], env: [{ name: 'MARK', value: c.mark }], resources: { cpu: '3' }, terminationGracePeriod: '1s', restartPolicy: 'Never' } },
    },
  });
});

const live = async () => (await c.instances('train')).filter((i) => !['Failed', 'Succeeded'].includes(i.status.phase) && !i.metadata.deletionTimestamp);
const whole = (lost) => eventually(`both run, none on ${lost}`, async () => {
  const list = await live();
  return list.length === 2 && list.every((i) => i.status.phase === 'Running' && !lost.includes(i.spec.nodeName)) && list;
}, { timeoutMs: 40_000 });

it('is whole again on another node, and the other member stays', async () => {
  const first = await whole([]);
  const lost = first[0].spec.nodeName;
  await c.killAgent(lost);
  const second = await whole([lost]);
  assert.ok(second.some((i) => i.metadata.uid === first[1].metadata.uid)); // it went on
  assert.notEqual(second[0].spec.nodeName, second[1].spec.nodeName);
});

it('is given up where there is no room, waits as a whole, and starts again when a node is back', async () => {
  const names = Object.keys(c.agents);
  const [one, other] = await whole([]);
  const dead = names.find((n) => ![one.spec.nodeName, other.spec.nodeName].includes(n));
  await c.killAgent(one.spec.nodeName);
  await eventually('both wait, and hold nothing', async () => {
    const list = await live();
    return list.length === 2 && list.every((i) => !i.spec.nodeName && /gang train: room for 1 of 2/.test(i.status.decision?.message));
  }, { timeoutMs: 60_000 });
  const { body } = await call(c.url, 'GET', '/api/v1/namespaces/default/events');
  assert.ok(body.items.some((e) => e.reason === 'GangIncomplete' && e.involvedObject.name === other.metadata.name));
  await c.startAgent(dead);
  await whole([one.spec.nodeName]);
  await c.startAgent(one.spec.nodeName);
  await eventually('nothing of the earlier ones is left', () => processesWith(c.mark).filter((p) => /sleep 1000/.test(p.args)).length === 2);
});
