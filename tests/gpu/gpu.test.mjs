// Shares on a real GPU: `make test-gpu`. Without NVIDIA's driver and a GPU it says so and is skipped. With ATOLL_GPU_STANDIN, a
// folder with the stand-ins for libcuda and libnvidia-ml, it runs over those: to test the suite, not the product.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { chmod, open } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { Cluster } from '../e2e/lib/cluster.mjs';
import { eventually, Fleet, run } from '../e2e/lib/atoll.mjs';
import { call } from '../e2e/lib/rest.mjs';
import { STATE_BYTES } from '../e2e/lib/standin.mjs';

const MIB = 1024 * 1024;
const standin = process.env.ATOLL_GPU_STANDIN;
const fleet = new Fleet();
let c, busy, dir, env = {}, why = '', device;
const it = (name, fn) => fleet.it(name, async (t) => (why ? t.skip(why) : fn(t)));

async function pretend() {
  const state = path.join(dir, 'state');
  const row = Buffer.alloc(STATE_BYTES);
  row.writeBigInt64LE(1n, 0);
  row.write('GPU-00000000-0000-0000-0000-000000000001', 8);
  row.write('Stand-in', 8 + 48);
  row.writeBigInt64LE(BigInt(4096 * MIB), 8 + 80);
  const file = await open(state, 'w');
  await file.write(row);
  await file.close();
  await chmod(state, 0o666);
  env = { LD_LIBRARY_PATH: standin, STANDIN_GPU_STATE: state };
  Object.assign(process.env, env);
}

before(async () => {
  dir = await fleet.dir('atoll-real-gpu');
  await chmod(dir, 0o755);
  if (standin) await pretend();
  busy = path.join(dir, 'busy');
  const built = await run('cc', ['-O2', '-o', busy, path.join(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), 'busy.c'), '-ldl']);
  if (built.code !== 0) throw new Error(`busy.c: ${built.err}`);
  const tried = await run(busy, ['info', 'calibrate']);
  if (tried.code !== 0) {
    why = `no NVIDIA GPU that works here: ${tried.out.trim()}`;
    return;
  }
  env.SPIN_TURNS = tried.out.match(/turns=(\d+)/)?.[1];
  c = await Cluster.start(fleet, { box: 'edge' });
  [device] = (await c.list('nodes'))[0].status.gpus ?? [];
  if (!device) why = 'the driver works, and NVML names no GPU';
  else console.log(`# on ${device.model}, ${device.memory}`);
});

async function start(name, words, gpu, gpuMemory, more = {}) {
  await c.server.apply({
    apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name, namespace: 'default' },
    spec: {
      completions: 1, backoffLimit: 0,
      template: {
        spec: {
          // CPU enough: a quota of a hundredth of a core makes a launch of 50 ns one of 5 us.
          command: [busy, ...words], resources: { cpu: '400m', gpu, gpuMemory }, restartPolicy: 'Never',
          env: Object.entries(env).map(([key, value]) => ({ name: key, value })), ...more,
        },
      },
    },
  });
}

async function said(name) {
  const i = await eventually(`${name} ended`, async () => {
    const [found] = await c.instances(name);
    return ['Succeeded', 'Failed'].includes(found?.status?.phase) && found;
  }, { timeoutMs: 120_000 });
  const log = await call(c.url, 'GET', `/api/v1/namespaces/default/pods/${i.metadata.name}/log`);
  await call(c.url, 'DELETE', `/apis/atoll.dev/v1/namespaces/default/jobs/${name}`);
  return log.body.trim().split('\n').join(' ');
}

// All begin at one moment, when all have come so far.
async function together(name, shares, ms) {
  const go = path.join(dir, `${name}-go`);
  await Promise.all(shares.map((gpu, n) => start(`${name}-${n}`, [`barrier:${go}`, `spin:${ms}`], gpu, '512Mi')));
  await eventually('all run', async () => {
    const phases = await Promise.all(shares.map(async (_, n) => (await c.instances(`${name}-${n}`))[0]?.status?.phase));
    return phases.every((p) => p === 'Running');
  }, { timeoutMs: 60_000 });
  writeFileSync(go, '');
  return (await Promise.all(shares.map((_, n) => said(`${name}-${n}`)))).map((text) => Number(text.match(/spin=(-?\d+)/)[1]));
}

it('memory is limited to the granularity of allocations', async () => {
  await start('exact', ['sleep:2500', 'info', `alloc:${1024 * MIB}`, `alloc:${512 * MIB}`, `alloc:${256 * MIB}`, `alloc:${4 * MIB}`, 'free', `alloc:${256 * MIB}`, 'info'], '0.25', '1Gi');
  const text = await said('exact');
  assert.match(text, /^info=0 \d+\/1073741824 alloc=2 alloc=0 alloc=/);
  const free = [...text.matchAll(/info=0 (\d+)\/1073741824/g)].map((m) => Number(m[1]));
  assert.ok(free[0] <= 1024 * MIB && free[1] < free[0], text);
});

for (const [name, shares] of [['one to one', ['0.5', '0.5']], ['one to three', ['0.25', '0.75']], ['one to one to two', ['0.25', '0.25', '0.5']]]) {
  it(`time is divided ${name}, within a tenth`, async () => {
    const counts = await together(name.replaceAll(' ', '-'), shares, 10_000);
    const sum = counts.reduce((a, b) => a + b, 0);
    console.log(`# ${counts.map((n) => (n / sum).toFixed(3)).join(' : ')}`);
    counts.forEach((n, k) => assert.ok(Math.abs(n / sum / Number(shares[k]) - 1) < 0.1, `${counts} for ${shares}`));
  });
}

it('what it costs is told', async () => {
  const words = ['rate:2000', 'rate:100000', 'copy:67108864:20'];
  const bare = (await run(busy, words)).out.trim().split('\n').slice(-2);
  await start('cost', words, '0.5', '1Gi');
  const shared = (await said('cost')).split(' ').slice(-2);
  console.log(`# ns a launch, MiB a second: bare ${bare.join(' ')}, with a share ${shared.join(' ')}`);
  assert.ok(shared.every((word) => /=(\d+|none)$/.test(word)), shared.join());
});

it('a neighbour that runs out of memory, or crashes, ends nobody else', async () => {
  await start('steady', [`alloc:${64 * MIB}`, 'spin:6000', 'info'], '0.5', '512Mi');
  await eventually('it runs', async () => (await c.instances('steady'))[0]?.status?.phase === 'Running');
  await start('greedy', Array(20).fill(`alloc:${128 * MIB}`), '0.25', '512Mi');
  assert.match(await said('greedy'), /alloc=2$/);
  await start('broken', ['crash'], '0.25', '512Mi');
  await said('broken');
  assert.match(await said('steady'), /^alloc=0 spin=[1-9]\d* info=0 /);
});

it('what is parked comes back as it was, and how long that takes is told', async () => {
  const name = 'parked', report = '/apis/atoll.dev/v1/gatewayreports';
  await c.server.apply({
    apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name, namespace: 'default' },
    spec: {
      replicas: 1,
      template: {
        spec: {
          command: [busy, `fill:${1024 * MIB}`, 'sleep:8000', 'check', 'sleep:600000'], port: -1, gpuSharing: { parkAfter: '1s' }, terminationGracePeriod: '1s',
          resources: { cpu: '400m', memory: '4Gi', gpu: '0.5', gpuMemory: '2Gi' }, env: Object.entries(env).map(([key, value]) => ({ name: key, value })),
        },
      },
    },
  });
  const state = async (...wanted) => eventually(wanted.join(' or '), async () => {
    const [i] = await c.instances(name);
    return wanted.includes(i?.status?.parking?.state) && i;
  }, { timeoutMs: 120_000 });
  const parked = await state('Parked', 'Refused');
  assert.equal(parked.status.parking.state, 'Parked', parked.status.parking.message);
  const status = { time: new Date().toISOString(), deployments: [{ namespace: 'default', name, model: name, waiting: 1, running: 0, arrived: 1 }] };
  await call(c.url, 'POST', report, { apiVersion: 'atoll.dev/v1', kind: 'GatewayReport', metadata: { name: 'g1' }, status });
  const back = await eventually('it is back', async () => (await state('Resident', 'Drained', 'Parked')).status.parking.resumes > 0 && c.instances(name));
  const p = back[0].status.parking;
  console.log(`# ${parked.status.parking.memory}: parked in ${p.parkMilliseconds} ms, brought back in ${p.resumeMilliseconds} ms`);
  await eventually('it reads what it wrote', async () => {
    const log = (await call(c.url, 'GET', `/api/v1/namespaces/default/pods/${back[0].metadata.name}/log`)).body;
    return /check=(0|none)\n/.test(log) || assert.doesNotMatch(log, /check=[1-9]/);
  }, { timeoutMs: 60_000 });
  await call(c.url, 'DELETE', `/apis/atoll.dev/v1/namespaces/default/deployments/${name}`);
});
