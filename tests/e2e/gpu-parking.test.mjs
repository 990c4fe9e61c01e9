// Models that nobody asks for leave the GPU for the machine's memory, and come back when somebody does: real server, agents,
// gateway; the GPU, its driver and its checkpoint calls are the stand-ins that the build makes.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { Cluster, processesWith } from './lib/cluster.mjs';
import { eventually, Fleet } from './lib/atoll.mjs';
import { Gateway } from './lib/gateway.mjs';
import { call, credentials } from './lib/rest.mjs';
import { GpuState, libraries, MIB, probe } from './lib/standin.mjs';

const fleet = new Fleet();
const skip = existsSync(probe) ? false : 'built without tests: no stand-in for libcuda';
const it = (name, fn) => fleet.it(name, fn, { skip });
const merge = { 'Content-Type': 'application/merge-patch+json' };
let gpus;

before(async () => {
  if (skip) return;
  gpus = await GpuState.make(fleet, [1024 * MIB]);
  process.env.LD_LIBRARY_PATH = libraries;
  process.env.STANDIN_GPU_STATE = gpus.path;
});

const model = (name, memory, { parkAfter = '1s', replicas = 1, words = [], resources = {}, priority, gpu = '0.5', ...spec } = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Deployment',
  metadata: { name, namespace: 'default' },
  spec: {
    replicas,
    waiting: { timeout: '40s' },
    traffic: { model: name },
    template: {
      spec: {
        command: [probe, 'dlsym', `alloc:${memory - 16 * MIB}`, ...words, 'serve:1000'],
        env: Object.entries({ LD_LIBRARY_PATH: libraries, STANDIN_GPU_STATE: gpus.path }).map(([key, value]) => ({ name: key, value })),
        readinessProbe: { httpPath: '/', period: '1s', timeout: '1s' },
        resources: { cpu: '100m', memory: '2Gi', gpu, gpuMemory: `${memory / MIB}Mi`, ...resources },
        gpuSharing: { parkAfter },
        priority,
        terminationGracePeriod: '1s',
        ...spec,
      },
    },
  },
});

const of = (list, owner) => list.filter((i) => i.metadata.ownerReferences?.[0]?.name === owner);
const parking = (i) => i?.status?.parking?.state ?? 'Resident';

async function remove(c, names) {
  for (const name of names) await call(c, 'DELETE', `/apis/atoll.dev/v1/namespaces/default/deployments/${name}`);
  const gone = async () => (await call(c, 'GET', '/apis/atoll.dev/v1/instances')).body.items.length === 0;
  await eventually('all is gone', gone, { timeoutMs: 20_000 });
}

it('a model that nobody asks for is parked; the next request brings it back; two have one place', async () => {
  const state = await fleet.dir('atoll-park');
  const proc = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--gateway-threads', '2', '--site', 'here']);
  await proc.line(/^ready dev$/m);
  const [, url] = await proc.line(/^gateway\s+(http\S+)$/m);
  const admin = await credentials(path.join(state, 'admin.kubeconfig'));
  const gateway = new Gateway(url, (await readFile(path.join(state, 'inference.token'), 'utf8')).trim(), proc);
  const list = async (kind) => (await call(admin, 'GET', `/apis/atoll.dev/v1/${kind}`)).body.items;
  const one = async (name) => of(await list('instances'), name)[0];
  const apply = async (object) => {
    const r = await call(admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', object);
    assert.equal(r.status, 201, JSON.stringify(r.body));
  };
  // Each needs more than half of the GPU.
  await apply(model('first', 640 * MIB));
  const parked = await eventually('it is parked', async () => {
    const i = await one('first');
    return parking(i) === 'Parked' && i;
  }, { timeoutMs: 30_000 });
  assert.equal(await gpus.used(0), 0);
  assert.equal(parked.status.parking.memory, '632Mi');
  assert.ok(parked.status.parking.parkMilliseconds > 0);
  assert.equal(parked.status.ready, false);
  const deployment = (await list('deployments')).find((d) => d.metadata.name === 'first');
  assert.equal(deployment.status.parkedReplicas, 1);
  assert.equal(deployment.status.conditions.find((x) => x.type === 'Available').status, 'True');
  // Its room is for others that park, and for nobody else.
  await apply(model('stays', 640 * MIB, { gpuSharing: {} }));
  await apply(model('second', 640 * MIB));
  await eventually('the second has the place', async () => parking(await one('second')) === 'Parked', { timeoutMs: 30_000 });
  assert.equal((await one('stays')).status.phase, 'Pending');
  await call(admin, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/deployments/stays');
  for (const name of ['first', 'second']) {
    const answer = await gateway.infer(name);
    assert.equal(answer.status, 200, answer.body);
    assert.ok((await gpus.used(0)) <= 1024 * MIB);
  }
  const told = await eventually('its return is told', async () => {
    const i = await one('first');
    return i.status.parking.resumes >= 1 && i;
  });
  assert.ok(told.status.parking.resumeMilliseconds > 0);
  const events = (await call(admin, 'GET', '/api/v1/events')).body.items.map((e) => `${e.reason}: ${e.message}`);
  assert.ok(events.some((e) => /^Parked: 632Mi of GPU memory went to the machine's memory in [0-9]+ ms/.test(e)), events.join('\n'));
  assert.ok(events.some((e) => /^Resumed: 632Mi came back to the GPU in [0-9]+ ms/.test(e)), events.join('\n'));
  assert.equal(told.status.restarts ?? 0, 0);
  await remove(admin, ['first', 'second', 'stays']);
  await eventually('nothing is left of it', async () => (await gpus.used(0)) === 0);
  await proc.kill('SIGTERM');
});

it('an agent that is killed while it parks, or brings back, finishes it when it is back', async () => {
  const c = await Cluster.start(fleet, { box: 'edge' });
  const one = async (name) => of(await c.list('instances'), name)[0];
  // In place of a gateway.
  const asked = async (name, waiting) => {
    const status = { time: new Date().toISOString(), deployments: waiting ? [{ namespace: 'default', name, model: name, waiting, running: 0, arrived: waiting }] : [] };
    const at = '/apis/atoll.dev/v1/gatewayreports';
    const patched = await call(c.url, 'PATCH', `${at}/g1`, { status }, merge);
    if (patched.status === 404) await call(c.url, 'POST', at, { apiVersion: 'atoll.dev/v1', kind: 'GatewayReport', metadata: { name: 'g1' }, status });
  };
  await gpus.copies(500); // 508 MiB take 1.1 s
  await c.server.apply(model('slow', 516 * MIB));
  for (const state of ['Parking', 'Resuming']) {
    await eventually(state, async () => {
      if (state === 'Resuming') await asked('slow', 1);
      return parking(await one('slow')) === state;
    }, { timeoutMs: 30_000 });
    await c.killAgent('box');
    await c.startAgent('box');
    const wanted = state === 'Parking' ? 'Parked' : 'Resident';
    const then = await eventually(wanted, async () => {
      if (state === 'Resuming') await asked('slow', 1);
      const i = await one('slow');
      return parking(i) === wanted && (wanted === 'Parked' || i.status.ready) && i;
    }, { timeoutMs: 30_000 });
    assert.equal(then.status.restarts ?? 0, 0);
    assert.equal(await gpus.used(0), state === 'Parking' ? 0 : 508 * MIB);
  }
  await asked('slow', 0);
  await gpus.copies(0);
  // Killed while it is parked.
  const i = await eventually('it is parked again', async () => {
    const found = await one('slow');
    return parking(found) === 'Parked' && found;
  }, { timeoutMs: 30_000 });
  // Its place is another's by now: it is not started beside that one.
  await c.server.apply(model('other', 640 * MIB, { parkAfter: '10m' }));
  await eventually('the other has its place', async () => (await one('other'))?.status?.ready, { timeoutMs: 20_000 });
  assert.equal(await gpus.used(0), 632 * MIB);
  process.kill(i.status.pid, 'SIGKILL');
  await eventually('another copy waits for room', async () => {
    const found = of(await c.list('instances'), 'slow').find((x) => x.metadata.name !== i.metadata.name);
    return found?.status?.decision?.state !== undefined && !found.spec.nodeName;
  }, { timeoutMs: 20_000 });
  assert.equal(await gpus.used(0), 632 * MIB);
  await remove(c.url, ['slow', 'other']);
  assert.equal(await gpus.used(0), 0);

  // What cannot be parked stays, and says why.
  const refuses = async (name) => eventually(`${name} refuses`, async () => {
    const found = await one(name);
    return parking(found) === 'Refused' && found.status.ready && found.status.parking.message;
  }, { timeoutMs: 30_000 });
  await gpus.tooOld(1);
  await c.server.apply([model('poor', 516 * MIB, { resources: { memory: '100Mi' } }), model('old', 400 * MIB)]);
  assert.match(await refuses('poor'), /^parking needs 508Mi of the machine's memory, and its resources.memory or the machine leave [0-9]+Mi$/);
  assert.equal(await refuses('old'), 'this GPU driver cannot park processes');
  await remove(c.url, ['poor', 'old']);
  await gpus.tooOld(0);
  // Managed memory breaks a process that is parked: it starts anew, and is left alone.
  await c.server.apply(model('managed', 516 * MIB, { words: ['managed:1000000'] }));
  assert.equal(await refuses('managed'), 'it did not outlive being parked before');
  const anew = await one('managed');
  assert.equal(anew.status.restarts, 1);
  const told = (await call(c.url, 'GET', '/api/v1/events')).body.items.find((e) => e.reason === 'ParkingFailed');
  assert.match(told.message, /^the GPU's driver could not go on with it: the driver cannot park process [0-9]+: error 801/);
  await remove(c.url, ['managed']);
  assert.deepEqual(processesWith('gpu-park').filter((p) => p.args.includes(' gpu-park ')), []);
});
