// Parts of GPUs that the agent makes by MIG, as the Node's spec says: against a stand-in for NVIDIA's management library.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { before } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { eventually, Fleet } from './lib/atoll.mjs';
import { Jobs } from './lib/gpus.mjs';
import { call } from './lib/rest.mjs';
import { gpuId, GpuState, MIB, probe } from './lib/standin.mjs';

const fleet = new Fleet();
const ids = [1, 2].map(gpuId);
const skip = existsSync(probe) ? false : 'built without tests: no stand-in for libcuda';
const it = (name, fn) => fleet.it(name, fn, { skip });
let c, gpus, jobs;

before(async () => {
  if (skip) return;
  gpus = await GpuState.make(fleet, [8192 * MIB, 8192 * MIB]);
  Object.assign(process.env, gpus.env());
  c = await Cluster.start(fleet, { box: 'edge' });
  jobs = new Jobs(c, gpus);
});

const node = async () => (await c.list('nodes'))[0];
const want = async (gpuParts) => (await call(c.url, 'PATCH', '/apis/atoll.dev/v1/nodes/box', { spec: { gpuParts } }, { 'Content-Type': 'application/merge-patch+json' })).status;
const condition = async () => (await node()).status.conditions.find((x) => x.type === 'MIGReady');
const is = (status, reason) => eventually(`${status} ${reason}`, async () => {
  const told = await condition();
  return told?.status === status && told.reason === reason && told;
});
const parts = async (parent) => (await node()).status.gpus.filter((g) => g.parent === parent).map((g) => g.memory).sort();
const are = (parent, list) => eventually(`parts are ${list}`, async () => JSON.stringify(await parts(parent)) === JSON.stringify(list));

it('a GPU tells what it can be divided into, and is divided as the node wants', async () => {
  assert.deepEqual((await node()).status.gpus[0].profiles, ['1g.1gb', '2g.2gb', '3g.4gb', '4g.4gb', '7g.8gb']);
  assert.equal(await want([{ gpu: ids[1], profiles: ['1g.1gb', '3g.4gb', '2g.2gb'] }]), 200);
  await is('True', 'Ready');
  await are(ids[1], ['1Gi', '2Gi', '4Gi']);
  assert.ok((await node()).status.gpus.some((g) => g.id === ids[0]), 'the other one is whole');
  await jobs.start('small', [`alloc:${2048 * MIB + 1}`, `alloc:${1000 * MIB}`, 'sleep:60000'], { resources: { gpu: '1', gpuMemory: '1536Mi' }, gpuSharing: { mode: 'MIG' } });
  await eventually('it holds memory', async () => /alloc=2\nalloc=0/.test(await jobs.log('small')));
  assert.match((await jobs.instance('small')).status.gpus[0].id, /^MIG-/);
});

it('one that is in use is left alone until it is free', async () => {
  assert.equal(await want([{ gpu: ids[1], profiles: ['4g.4gb', '3g.4gb'] }]), 200);
  assert.match((await is('False', 'Busy')).message, /is divided anew as soon as nothing runs on it/);
  assert.deepEqual(await parts(ids[1]), ['1Gi', '2Gi', '4Gi']);
  assert.equal((await jobs.running('small')).status.phase, 'Running');
  await jobs.remove('small');
  await is('True', 'Ready');
  await are(ids[1], ['4Gi', '4Gi']);
});

it('what cannot be is refused, and nothing is unmade for it', async () => {
  assert.equal(await want([{ gpu: ids[1], profiles: ['7g.8gb', '1g.1gb'] }]), 200);
  assert.match((await is('False', 'Refused')).message, /do not fit on it together/);
  assert.equal(await want([{ gpu: ids[1], profiles: ['1g.99gb'] }]), 200);
  await eventually('it says which', async () => /no parts of the kind 1g.99gb/.test((await condition()).message));
  assert.deepEqual(await parts(ids[1]), ['4Gi', '4Gi']);
  assert.equal(await want([{ gpu: ids[1], profiles: ['a lot'] }]), 422);
  assert.equal(await want([{ gpu: 'GPU-x', profiles: [] }]), 200);
  await eventually('it says which', async () => /GPU-x: it is not on this machine/.test((await condition()).message));
});

it('an agent that is killed half-way, or a driver that fails, is taken on from there', async () => {
  await gpus.poke(1, 'migFails', 1); // the second half of the first part, or its whole, fails
  assert.equal(await want([{ gpu: ids[1], profiles: ['2g.2gb', '2g.2gb'] }]), 200);
  await eventually('it failed', async () => (await gpus.peek(1, 'migFails')) === 0);
  await c.killAgent('box');
  await c.startAgent('box');
  await is('True', 'Ready');
  await are(ids[1], ['2Gi', '2Gi']);
});

it('no parts make it whole again', async () => {
  assert.equal(await want([{ gpu: '*', profiles: [] }]), 200);
  await eventually('it is whole', async () => (await node()).status.gpus.map((g) => g.id).join() === ids.join());
  assert.equal(await gpus.peek(1, 'mig'), 0);
  assert.equal(await want([]), 200);
  await eventually('nothing is said of it any more', async () => (await condition()) === undefined);
});
