// Who holds which GPU, who gives way to whom, and who starts together: real agents with pretend devices.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { eventually, Fleet } from './lib/atoll.mjs';
import { call } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;

before(async () => {
  const devices = {
    'edge-1': await fleet.file('edge.json', JSON.stringify({
      capacity: { cpu: '4', memory: '8Gi' },
      gpus: ['GPU-aa', 'GPU-bb'].map((id) => ({ id, model: 'A10', memory: '24Gi' })),
    })),
  };
  c = await Cluster.start(fleet, { 'edge-1': 'edge' }, { devices });
});

const runs = (name, resources, { kind = 'Deployment', owner = {}, ...spec } = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind,
  metadata: { name, namespace: 'default' },
  spec: { ...owner, template: { spec: { command: ['sleep', '1000'], env: [{ name: 'MARK', value: c.mark }], resources, terminationGracePeriod: '1s', ...(kind === 'Job' ? { restartPolicy: 'Never' } : {}), ...spec } } },
});
const running = async (name, n) => eventually(`${n} of ${name} run`, async () => {
  const list = await c.instances(name);
  return list.filter((i) => i.status.phase === 'Running').length === n && list;
});
const gone = async (kind, name) => {
  await c.server.k(`delete ${kind} ${name}`);
  await eventually(`${name} has gone`, async () => (await c.instances(name)).length === 0);
};
const events = async (reason) => (await call(c.url, 'GET', '/api/v1/namespaces/default/events')).body.items.filter((e) => e.reason === reason);

it('records the GPUs that it gives, and what runs sees those only', async () => {
  const tell = ['sh', '-c', 'echo "gpus=$CUDA_VISIBLE_DEVICES milli=$ATOLL_GPU_MILLI"; exec sleep 1000'];
  await c.server.apply(runs('half', { cpu: '100m', gpu: '0.5', gpuMemory: '8Gi' }, { owner: { replicas: 3 }, command: tell }));
  const list = await running('half', 3);
  const held = {};
  for (const i of list) {
    assert.equal(i.status.gpus.length, 1);
    const [gpu] = i.status.gpus;
    assert.equal(gpu.id, ['GPU-aa', 'GPU-bb'][gpu.index]);
    assert.equal(gpu.memory, '8Gi');
    held[gpu.id] = (held[gpu.id] ?? 0) + gpu.milli;
    const log = await eventually('it says what it sees', async () => {
      const { out } = await c.server.kubectl(`logs ${i.metadata.name}`);
      return /gpus=/.test(out) && out;
    });
    assert.match(log, new RegExp(`gpus=${gpu.id} milli=500`));
  }
  assert.deepEqual(Object.values(held).sort(), [1000, 500]); // two share one, which leaves half of the other
  await gone('deployment', 'half');
});

it('a higher priority takes the place of a lower one, within its budget and with its grace', async () => {
  await c.server.apply(runs('low', { cpu: '1500m' }, { owner: { replicas: 2, disruption: { maxUnavailable: 1 } }, priority: 1 }));
  const before = await running('low', 2);
  await c.server.apply(runs('patient', { cpu: '2' }, { priority: 10, preemptionPolicy: 'Never' }));
  await c.server.apply(runs('high', { cpu: '2' }, { priority: 10 }));
  const [high] = await running('high', 1);
  const told = await events('Preempted');
  assert.equal(told.length, 1);
  assert.ok(before.some((i) => i.metadata.name === told[0].involvedObject.name));
  assert.match(told[0].message, new RegExp(`^ends to make room on edge-1 for default/${high.metadata.name} of priority 10$`));
  assert.equal((await events('Preempting'))[0].involvedObject.name, high.metadata.name);
  assert.equal(high.status.nominatedNode, undefined);
  // The budget: no second one goes, though another of priority 10 waits.
  await c.server.apply(runs('higher', { cpu: '2' }, { priority: 11 }));
  await eventually('it is told why it waits', async () => (await c.instances('higher'))[0]?.status?.decision?.message);
  assert.equal((await c.instances('low')).filter((i) => i.status.phase === 'Running').length, 1);
  assert.equal((await c.instances('patient'))[0].spec.nodeName, undefined);
  for (const name of ['higher', 'high', 'patient', 'low']) await gone('deployment', name);
});

it('what a disruption budget keeps out is told so, and goes on once the budget allows it', async () => {
  await c.server.apply(runs('firm', { cpu: '3' }, { owner: { disruption: { maxUnavailable: 0 } }, priority: 1 }));
  await running('firm', 1);
  await eventually('it is ready', async () => (await c.get('deployments', 'firm')).status.readyReplicas === 1);
  await c.server.apply(runs('urgent', { cpu: '3' }, { priority: 10 }));
  await eventually('it is told of the budget', async () => {
    const remedies = (await c.instances('urgent'))[0]?.status?.decision?.remedies ?? [];
    return remedies.some((r) => r.kind === 'Preempt' && /; the disruption budget of Deployment firm does not allow it now$/.test(r.message));
  });
  await c.patch('deployments', 'firm', { spec: { disruption: { maxUnavailable: 1 } } });
  await running('urgent', 1);
  for (const name of ['urgent', 'firm']) await gone('deployment', name);
});

it('a gang starts whole or not at all', async () => {
  await c.server.apply(runs('filler', { cpu: '2' }));
  await running('filler', 1);
  await c.server.apply(runs('gang', { cpu: '1' }, { kind: 'Job', owner: { completions: 3, parallelism: 3, gangSize: 3 } }));
  const waiting = await eventually('all three are told why they wait', async () => {
    const list = await c.instances('gang');
    return list.length === 3 && list.every((i) => /gang gang: room for 2 of 3/.test(i.status?.decision?.message)) && list;
  });
  assert.ok(waiting.every((i) => !i.spec.nodeName));
  await gone('deployment', 'filler');
  await running('gang', 3);
  await gone('job', 'gang');
});

it('a gang that could never be whole is refused', async () => {
  const answer = await call(c.url, 'POST', '/apis/atoll.dev/v1/namespaces/default/jobs', runs('odd', { cpu: '1' }, { kind: 'Job', owner: { completions: 2, parallelism: 2, gangSize: 3 } }));
  assert.equal(answer.status, 422);
  assert.match(answer.body.message, /spec\.gangSize/);
});
