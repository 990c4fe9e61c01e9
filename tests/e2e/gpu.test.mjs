// Shares of GPUs, from the manifest to the refusal: real server and agent, programs that use CUDA's driver and NVML, whose
// libraries are the stand-ins that the build makes. Devices are rows of a file.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { ATOLL, eventually, Fleet, run } from './lib/atoll.mjs';
import { Jobs } from './lib/gpus.mjs';
import { call } from './lib/rest.mjs';
import { DEVICE, STATE_BYTES } from './lib/standin.mjs';

const MIB = 1024 * 1024;
const libraries = path.join(path.dirname(ATOLL), 'src/interpose');
const probe = path.join(libraries, 'gpu-probe');
const ids = [1, 2].map((n) => `GPU-00000000-0000-0000-0000-00000000000${n}`);

const offset = (device, field) => 8 + device * DEVICE.bytes + DEVICE[field];

const fleet = new Fleet();
const skip = existsSync(probe) ? false : 'built without tests: no stand-in for libcuda';
const it = (name, fn) => fleet.it(name, fn, { skip });
let c, file, jobs, state;

async function poke(device, field, value) {
  const word = Buffer.alloc(8);
  word.writeBigInt64LE(BigInt(value));
  await file.write(word, 0, 8, offset(device, field));
}

async function plug(n, id, name, bytes) {
  await file.write(Buffer.from(id), 0, id.length, 8 + n * DEVICE.bytes);
  await file.write(Buffer.from(name), 0, name.length, 8 + n * DEVICE.bytes + 48);
  await poke(n, 'total', bytes);
}

before(async () => {
  if (skip) return;
  state = path.join(await fleet.dir('atoll-gpus'), 'state');
  await chmod(path.dirname(state), 0o755);
  file = await open(state, 'w+');
  await file.truncate(STATE_BYTES);
  const count = Buffer.alloc(8);
  count.writeBigInt64LE(2n);
  await file.write(count, 0, 8, 0);
  for (const [n, id] of ids.entries()) await plug(n, id, 'Stand-in', 1024 * MIB);
  await chmod(state, 0o666);
  process.env.LD_LIBRARY_PATH = libraries;
  process.env.STANDIN_GPU_STATE = state;
  c = await Cluster.start(fleet, { box: 'edge' });
  jobs = new Jobs(c, { env: () => ({ LD_LIBRARY_PATH: libraries, STANDIN_GPU_STATE: state }) });
});

const events = async () => (await call(c.url, 'GET', '/api/v1/events')).body.items;
const start = (...job) => jobs.start(...job);
const instance = (name) => jobs.instance(name);
const log = (name) => jobs.log(name);
const ended = (name) => jobs.ended(name);
const said = (name) => jobs.said(name); // its log when it has ended

it('the inventory comes from the driver', async () => {
  const [node] = await c.list('nodes');
  assert.deepEqual(node.status.gpus.map((g) => [g.id, g.model, g.memory]), ids.map((id) => [id, 'Stand-in', '1Gi']));
  assert.equal(node.status.capacity.gpu, '2');
});

it('an instance gets its share to the byte, and is told so', async () => {
  await start('exact', [`alloc:${256 * MIB + 1}`, `alloc:${256 * MIB}`, 'alloc:1', 'info', 'total', 'nvml']);
  assert.equal(await said('exact'), 'alloc=2 alloc=0 alloc=2 info=0 0/268435456 total=268435456 nvml=268435456/0/268435456');
});

it('a part without a word on memory is that part of the memory', async () => {
  await start('part', [`alloc:${512 * MIB + 1}`, `alloc:${512 * MIB}`], { resources: { gpu: '0.5' } });
  assert.equal(await said('part'), 'alloc=2 alloc=0');
});

it('neither the environment nor a child makes it wider', async () => {
  const clean = ['env', '-u', 'LD_PRELOAD', 'CUDA_VISIBLE_DEVICES=0,1', probe, 'dlsym'];
  await start('unset', [], { command: [...clean, `alloc:${256 * MIB + 1}`, `exec:alloc:${256 * MIB + 1}`] });
  assert.equal(await said('unset'), 'alloc=2 alloc=2');
  await start('child', [`fork:alloc:${256 * MIB + 1}`, `fork:alloc:${256 * MIB}`], { env: { ATOLL_GPU_MEMORY_BYTES: '99999999999' } });
  assert.equal(await said('child'), 'alloc=2 alloc=0');
  await start('elsewhere', [], { command: [...clean, 'context:0', 'alloc:1', 'context:1', 'alloc:1'] });
  assert.match(await said('elsewhere'), /^context=0 alloc=(0 context=0 alloc=2|2 context=0 alloc=0)$/);
});

it('device files of other GPUs are not there', async (t) => {
  const other = '/dev/nvidia98';
  if (process.getuid() !== 0 || existsSync('/dev/nvidia0') || existsSync(other)) {
    t.skip('needs root, and a machine without GPUs of its own');
    return;
  }
  await writeFile(other, 'of others');
  try {
    await start('peeks', [], { command: ['cat', other], resources: {} });
    assert.equal(await said('peeks'), '');
    assert.equal((await ended('peeks')).status.phase, 'Succeeded');
  } finally {
    await rm(other);
  }
});

it('use is told in the status, and a share is resized while it runs', async () => {
  await start('grows', [`alloc:${200 * MIB}`, `alloc:${200 * MIB}`, `retry:${200 * MIB}`, 'sleep:1500']);
  const told = await eventually('its use is told', async () => {
    const i = await instance('grows');
    return i?.status?.gpuUse?.[0]?.refused > 0 && i.status.gpuUse[0].used === '208Mi' && i;
  });
  assert.equal(told.status.gpuUse[0].memory, '256Mi');
  const refused = await eventually('an Event says so', async () => (await events()).find((e) => e.reason === 'GPUMemoryRefused'));
  assert.match(refused.message, /[0-9]+ allocations found no room in its share of GPU GPU-[0-9-]+: it holds 208Mi of 256Mi/);
  const gpus = told.status.gpus.map((g) => ({ ...g, memory: '512Mi' }));
  const answer = await call(c.url, 'PATCH', `/apis/atoll.dev/v1/namespaces/default/instances/${told.metadata.name}/status`, { status: { gpus } }, { 'Content-Type': 'application/merge-patch+json' });
  assert.equal(answer.status, 200);
  assert.match(await said('grows'), /^alloc=0 alloc=2 retry=0/);
});

it('a Deployment resizes what runs when its GPU has room, and replaces it when not', async () => {
  const deployments = '/apis/atoll.dev/v1/namespaces/default/deployments';
  await c.server.apply({
    apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'sized', namespace: 'default' },
    spec: {
      replicas: 1,
      template: {
        spec: {
          command: [probe, 'dlsym', `alloc:${200 * MIB}`, `alloc:${200 * MIB}`, `retry:${200 * MIB}`, 'info', 'sleep:60000'], port: -1,
          env: Object.entries({ LD_LIBRARY_PATH: libraries, STANDIN_GPU_STATE: state }).map(([key, value]) => ({ name: key, value })),
          resources: { cpu: '10m', gpu: '0.25', gpuMemory: '256Mi' }, terminationGracePeriod: '1s',
        },
      },
    },
  });
  const running = (what, ok) => eventually(what, async () => {
    const all = await c.instances('sized');
    return all.length === 1 && all[0].status?.phase === 'Running' && ok(all[0]) && all[0];
  }, { timeoutMs: 30_000 });
  const resize = async (resources) => {
    const r = await call(c.url, 'PATCH', `${deployments}/sized`, { spec: { template: { spec: { resources } } } }, { 'Content-Type': 'application/merge-patch+json' });
    assert.equal(r.status, 200, JSON.stringify(r.body));
  };
  const first = await running('it is refused', (i) => i.status.gpuUse?.[0]?.refused > 0);
  await resize({ gpu: '0.5', gpuMemory: '512Mi' });
  const grown = await running('it holds more', (i) => i.status.gpuUse?.[0]?.memory === '512Mi' && i.status.gpuUse[0].used === '408Mi');
  assert.equal(grown.metadata.name, first.metadata.name);
  assert.equal(grown.status.pid, first.status.pid);
  assert.deepEqual(grown.status.gpus.map((g) => [g.milli, g.memory]), [[500, '512Mi']]);
  assert.deepEqual([grown.status.resize.state, grown.status.resize.message], ['Done', 'its share of a GPU is 500m with 512Mi, was 250m with 256Mi']);
  const d = (await call(c.url, 'GET', `${deployments}/sized`)).body;
  assert.deepEqual([d.status.resizedReplicas, d.status.updatedReplicas], [1, 1]);
  assert.match(await log('sized'), /alloc=0\nalloc=2\nretry=0\ninfo=0 [0-9]+\/536870912/);
  assert.ok((await events()).some((e) => e.reason === 'Resized' && e.involvedObject.name === first.metadata.name));
  await resize({ gpu: '0.25', gpuMemory: '448Mi' });
  const shrunk = await running('it may hold less', (i) => i.status.gpuUse?.[0]?.memory === '448Mi');
  assert.equal(shrunk.status.pid, first.status.pid);
  await resize({ gpuMemory: '256Mi' }); // less than it holds
  const second = await running('another one takes its place', (i) => i.metadata.name !== first.metadata.name);
  assert.equal(second.status.gpus[0].memory, '256Mi');
  const where = second.status.gpus[0].id;
  await start('beside', ['sleep:60000'], { resources: { gpu: '0.5', gpuMemory: '700Mi' } });
  const beside = await eventually('a neighbour runs', async () => (await instance('beside'))?.status?.phase === 'Running' && instance('beside'));
  await resize({ cpu: '20m' });
  const third = await running('a change of something else replaces it', (i) => i.metadata.name !== second.metadata.name);
  if (third.status.gpus[0].id === beside.status.gpus[0].id) {
    await resize({ gpuMemory: '512Mi' }); // there is no room beside its neighbour
    const fourth = await running('it goes where there is room', (i) => i.metadata.name !== third.metadata.name);
    assert.notEqual(fourth.status.gpus[0].id, beside.status.gpus[0].id);
  } else {
    await resize({ gpuMemory: '1000Mi' }); // alone it has the whole GPU's memory
    assert.equal((await running('it has more', (i) => i.status.gpuUse?.[0]?.memory === '1000Mi')).metadata.name, third.metadata.name);
  }
  assert.ok(ids.includes(where));
  await call(c.url, 'DELETE', `${deployments}/sized`);
  await call(c.url, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/jobs/beside');
  await eventually('they are gone', async () => (await c.instances('sized')).length === 0 && (await c.instances('beside')).length === 0, { timeoutMs: 20_000 });
});

it('who takes memory past the library is ended, by the word of the driver', async () => {
  // Its own way to the devices: rows of its own in the file.
  const script = `
    const fs = require('fs');
    const row = Buffer.alloc(16), file = fs.openSync(process.argv[1], 'r+');
    row.writeBigInt64LE(BigInt(process.pid)); row.writeBigInt64LE(${900 * MIB}n, 8);
    for (const at of [${offset(0, 'processes')}, ${offset(1, 'processes')}]) fs.writeSync(file, row, 0, 16, at + 60 * 16);
    setTimeout(() => console.log('never'), 60000);`;
  await start('thief', [], { command: [process.execPath, '-e', script, state] });
  const i = await ended('thief');
  assert.equal(i.status.reason, 'GPUMemoryExceeded');
  assert.match(i.status.message, /held more memory of its GPU than its share/);
});

it('neighbours that launch without end share the time', async () => {
  await start('blocker', ['sleep:60000'], { resources: { gpu: '1' } });
  await eventually('the other device is taken', async () => (await instance('blocker'))?.status?.phase === 'Running');
  let a, b, quarter, rest, n = 0;
  do { // on a busy machine one may begin when the other has ended: then all kernels together are more than one device takes
    n++;
    await Promise.all([
      start(`quarter-${n}`, ['sleep:500', 'spin:100000:3000'], { resources: { gpu: '0.25', gpuMemory: '600Mi' } }),
      start(`rest-${n}`, ['sleep:500', 'spin:100000:3000'], { resources: { gpu: '0.75', gpuMemory: '400Mi' } }),
    ]);
    [quarter, rest] = (await Promise.all([said(`quarter-${n}`), said(`rest-${n}`)])).map((t) => Number(t.replace('spin=', '')));
    [a, b] = await Promise.all([instance(`quarter-${n}`), instance(`rest-${n}`)]);
    assert.equal(a.status.gpus[0].id, b.status.gpus[0].id);
  } while (quarter + rest > 45_000 && n < 4);
  // Kernels of 0.1 ms in 3 s. How exact it is shows src/interpose/gate_test.c in its own time; this machine may be busy.
  assert.ok(rest > 1000, `${quarter} and ${rest}`);
  assert.ok(quarter < 15000, `${quarter} and ${rest}`);
  assert.ok(a.status.gpuUse[0].waitedMilliseconds > 0);
  await call(c.url, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/jobs/blocker');
});

it('a strict share is all that it gets, though it be alone', async () => {
  await start('strict', ['spin:100000:2000'], { resources: { gpu: '0.25' }, gpuSharing: { strict: true } });
  const launched = Number((await said('strict')).replace('spin=', ''));
  assert.ok(launched > 0 && launched < 7000, `${launched} of 20000`); // a quarter is 5000; the first of them wait for nobody
});

it('what does not fit spills to the memory of the machine, as far as it is told to', async () => {
  await start('spills', [200, 100, 100].map((n) => `alloc:${n * MIB}`).concat('sleep:1500'), { gpuSharing: { spill: '128Mi' } });
  await eventually('it is told', async () => (await instance('spills'))?.status?.gpuUse?.[0]?.spilled === '100Mi');
  assert.match(await said('spills'), /^alloc=0 alloc=0 alloc=2/);
});

it('a node shares its GPUs as its spec says, and takes none that asks for another way', async () => {
  const set = (mode) => call(c.url, 'PATCH', '/apis/atoll.dev/v1/nodes/box', { spec: { gpuSharing: mode } }, { 'Content-Type': 'application/merge-patch+json' });
  assert.equal((await set('TimeSlices')).status, 200);
  await start('elsewise', ['alloc:1'], { gpuSharing: { mode: 'MPS' } });
  const waits = await eventually('it waits', async () => (await instance('elsewise'))?.status?.decision?.refusals && instance('elsewise'));
  assert.deepEqual(waits.status.decision.refusals.map((r) => [r.rule, r.example]), [['GPUSharing', 'box: GPUs are shared by TimeSlices, wanted MPS']]);
  let n = 0;
  await eventually('a share is one of memory only', async () => {
    const name = `slices-${n++}`;
    await start(name, [`alloc:${257 * MIB}`, 'sleep:1200']);
    assert.match(await said(name), /^alloc=2/);
    return (await instance(name)).status.gpuUse[0].mode === 'TimeSlices';
  }, { timeoutMs: 30_000 });
  assert.equal((await set('')).status, 200);
  await call(c.url, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/jobs/elsewise');
});

it('a share outlives the agent, and nothing is given twice', async () => {
  await start('stays', [`alloc:${200 * MIB}`, 'sleep:2500', `alloc:${200 * MIB}`, `alloc:${56 * MIB}`]);
  await eventually('it holds memory', async () => /alloc=0/.test(await log('stays').catch(() => '')));
  await c.killAgent('box');
  await c.startAgent('box');
  assert.match(await said('stays'), /^alloc=0 alloc=2 alloc=[02]$/); // the context counts since the first look
});

it('a device that is lost, and a driver that lies, end nobody else', async () => {
  await start('bystander', ['alloc:1000', 'sleep:2500', 'info']);
  const i = await eventually('it runs', async () => {
    const found = await instance('bystander');
    return found?.status?.phase === 'Running' && found;
  });
  const device = ids.indexOf(i.status.gpus[0].id);
  await poke(device, 'lies', 3);
  assert.match(await said('bystander'), /^alloc=0 info=0 /);
  await poke(device, 'lies', 0);
  await poke(device, 'lost', 1);
  const fault = async () => (await c.list('nodes'))[0].status.gpus[device].fault;
  await eventually('the node says so', async () => /does not find it/.test(await fault()));
  await Promise.all(['unlucky', 'lucky'].map((name) => start(name, ['alloc:1'], { resources: { gpu: '1' } })));
  for (const name of ['unlucky', 'lucky']) {
    assert.equal(await said(name), 'alloc=0');
    assert.equal((await instance(name)).status.gpus[0].id, ids[1 - device]);
  }
  await poke(device, 'lost', 0);
  await eventually('the node takes it back', async () => (await fault()) === undefined);
});

it('what ran on a GPU that failed goes elsewhere, and is no failure of its own', async () => {
  await start('moved', ['alloc:1000', 'sleep:60000'], { resources: { gpu: '1' } });
  const [first] = await eventually('it runs', async () => {
    const found = await c.instances('moved');
    return found[0]?.status?.phase === 'Running' && found;
  });
  const device = ids.indexOf(first.status.gpus[0].id);
  await poke(device, 'xid', 79);
  const second = await eventually('it runs elsewhere', async () => {
    const found = await c.instances('moved');
    return found.find((i) => i.status?.phase === 'Running' && i.status.gpus[0].id === ids[1 - device]);
  });
  assert.notEqual(second.metadata.name, first.metadata.name);
  const told = await events();
  const failed = told.find((e) => e.reason === 'GPUFailed' && /XID/.test(e.message));
  assert.match(failed.message, new RegExp(`GPU ${ids[device]}: its driver told of XID 79`));
  assert.equal(failed.involvedObject.kind, 'Node');
  assert.ok(told.some((e) => e.reason === 'GPULost' && e.involvedObject.name === first.metadata.name));
  await call(c.url, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/jobs/moved');
  await c.killAgent('box'); // the device was mended
  await c.startAgent('box');
  await eventually('all is well', async () => (await c.list('nodes'))[0].status.gpus.every((g) => g.fault === undefined));
});

it('parts that MIG makes are devices of their own', async () => {
  const parts = [3, 4].map((n) => `MIG-00000000-0000-0000-0000-00000000000${n}`);
  for (const [n, id] of parts.entries()) {
    await plug(2 + n, id, 'Stand-in MIG 1g', 128 * MIB);
    await poke(2 + n, 'parent', 2);
  }
  await poke(1, 'mig', 1);
  const count = Buffer.alloc(8);
  count.writeBigInt64LE(4n);
  await file.write(count, 0, 8, 0);
  await c.killAgent('box');
  await c.startAgent('box');
  const node = await eventually('the node tells of them', async () => (await c.list('nodes')).find((x) => x.status.gpus.length === 3));
  assert.deepEqual(node.status.gpus.map((g) => [g.id, g.parent]), [[ids[0], undefined], [parts[0], ids[1]], [parts[1], ids[1]]]);
  await start('part-of', [`alloc:${129 * MIB}`, `alloc:${100 * MIB}`], { resources: { gpu: '1' }, gpuSharing: { mode: 'MIG' } });
  assert.equal(await said('part-of'), 'alloc=2 alloc=0');
  assert.match((await instance('part-of')).status.gpus[0].id, /^MIG-/);
});

it('nothing is left of shares that ended', async () => {
  for (const job of await c.list('jobs')) await call(c.url, 'DELETE', `/apis/atoll.dev/v1/namespaces/default/jobs/${job.metadata.name}`);
  await eventually('their folders are gone', async () => {
    const { out } = await run('ls', [path.join(c.agents.box.state, 'gpu')]);
    return out.trim() === '';
  }, { timeoutMs: 40_000 });
});
