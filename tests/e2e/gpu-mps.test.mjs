// GPUs shared by NVIDIA's Multi-Process Service, which the agent starts, limits, keeps alive and ends. The service and the
// libraries are stand-ins that the build makes; on a real GPU nothing of this has run yet.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, symlink } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { eventually, Fleet, run } from './lib/atoll.mjs';
import { Jobs } from './lib/gpus.mjs';
import { call } from './lib/rest.mjs';
import { GpuState, libraries, MIB, probe } from './lib/standin.mjs';

const fleet = new Fleet();
const skip = existsSync(probe) ? false : 'built without tests: no stand-in for libcuda';
const it = (name, fn) => fleet.it(name, fn, { skip });
let c, gpus, jobs, bin;

before(async () => {
  if (skip) return;
  gpus = await GpuState.make(fleet, [1024 * MIB]);
  bin = await fleet.dir('atoll-bin');
  Object.assign(process.env, gpus.env(), { PATH: `${bin}:${process.env.PATH}` });
  c = await Cluster.start(fleet, { box: 'edge' });
  await chmod(c.agents.box.state, 0o755); // so that instances have a user of their own
  jobs = new Jobs(c, gpus);
});

const patchNode = (body) => call(c.url, 'PATCH', '/apis/atoll.dev/v1/nodes/box', body, { 'Content-Type': 'application/merge-patch+json' });
const condition = async () => (await c.list('nodes'))[0].status.conditions.find((x) => x.type === 'MPSReady');
const services = () => {
  const dir = path.join(c.agents.box.state, 'mps');
  return existsSync(dir) ? readdirSync(dir).map((name) => path.join(dir, name)) : [];
};

const pid = () => Number(readFileSync(path.join(services()[0], 'p/nvidia-cuda-mps-control.pid'), 'latin1'));

// It has ended, be it that nobody took its exit status yet.
function gone(process) {
  try {
    return / Z /.test(readFileSync(`/proc/${process}/stat`, 'latin1'));
  } catch {
    return true;
  }
}

// What NVIDIA's program answers.
async function control(command) {
  const { out } = await run('sh', ['-c', `echo '${command}' | '${path.join(libraries, 'nvidia-cuda-mps-control')}'`], { env: { ...process.env, CUDA_MPS_PIPE_DIRECTORY: path.join(services()[0], 'p') } });
  return out.trim();
}
const clients = async () => (await control('clients')).split('\n').filter(Boolean).map((line) => line.split(' ').map(Number));

it('a machine without NVIDIA\'s program says so, and gets no shares', async () => {
  assert.equal((await patchNode({ spec: { gpuSharing: 'MPS' } })).status, 200);
  const told = await eventually('the condition is there', condition);
  assert.deepEqual([told.status, told.reason], ['False', 'NoProgram']);
  assert.match(told.message, /nvidia-cuda-mps-control is not on PATH: install .*, or name it by --mps-control/);
  await jobs.start('early', [`alloc:${MIB}`, 'sleep:600']);
  const waits = await eventually('it waits', async () => (await jobs.instance('early'))?.status?.decision?.refusals && jobs.instance('early'));
  assert.equal(waits.status.decision.refusals[0].rule, 'GPUSharing');
  assert.match(waits.status.decision.refusals[0].example, /nvidia-cuda-mps-control is not on PATH/);
  await symlink(path.join(libraries, 'nvidia-cuda-mps-control'), path.join(bin, 'nvidia-cuda-mps-control'));
  await c.killAgent('box');
  await c.startAgent('box');
  await eventually('it is ready', async () => (await condition())?.status === 'True');
  assert.equal(await jobs.said('early'), 'alloc=0');
});

it('an instance is a client with its share, which its environment does not widen', async () => {
  const wide = { CUDA_MPS_ACTIVE_THREAD_PERCENTAGE: '100', CUDA_MPS_PINNED_DEVICE_MEM_LIMIT: '0=1000M', CUDA_MPS_PIPE_DIRECTORY: '/tmp/none' };
  await jobs.start('quarter', [`alloc:${257 * MIB}`, 'alloc:1000', 'sleep:60000'], { env: wide });
  await jobs.start('half', ['alloc:1000', 'fork:alloc:1', 'sleep:60000'], {
    resources: { gpu: '0.5', gpuMemory: '512Mi' },
    command: ['env', '-u', 'CUDA_MPS_ACTIVE_THREAD_PERCENTAGE', '-u', 'CUDA_MPS_PIPE_DIRECTORY', '-u', 'LD_PRELOAD', probe, 'dlsym', 'alloc:1000', 'sleep:60000'],
  });
  await eventually('both hold memory', async () => /alloc=0/.test(await jobs.log('quarter')) && /alloc=0/.test(await jobs.log('half')));
  assert.match(await jobs.log('quarter'), /^alloc=2\nalloc=0/);
  const list = await clients();
  assert.deepEqual(list.map(([, , percent, mib]) => [percent, mib]).sort(), [[25, 256], [50, 512]]);
  assert.equal(list[0][1], list[1][1], 'one user, or the second would wait for the end of the first');
  // Whoever gets past all that has what the largest of them may have.
  assert.deepEqual([await control('get_default_active_thread_percentage'), await control('get_default_device_pinned_mem_limit 0')], ['50.0', '512M']);
  const use = await eventually('it is told', async () => (await jobs.instance('quarter')).status.gpuUse);
  assert.deepEqual([use[0].mode, use[0].memory], ['MPS', '256Mi']);
});

it('while the service runs nobody else gets at the GPU', async () => {
  assert.equal(await gpus.peek(0, 'computeMode'), 3);
  const outside = async (env) => (await run(probe, ['dlsym', 'alloc:1'], { env: { ...process.env, ...gpus.env(), ...env } })).out.trim();
  assert.equal(await outside({ CUDA_MPS_PIPE_DIRECTORY: '/tmp/none' }), 'start=2');
  if (process.getuid() === 0) assert.equal(await outside({ CUDA_MPS_PIPE_DIRECTORY: path.join(services()[0], 'p') }), 'start=805');
});

it('an image, or one of another user, is refused with the reason', async () => {
  const share = { resources: { gpu: '0.1', gpuMemory: '64Mi' } };
  await jobs.start('boxed', [], { ...share, image: 'oci:/nowhere:latest' });
  await jobs.start('stranger', ['alloc:1'], { ...share, user: 4242 });
  const why = async (name) => [(await jobs.ended(name)).status.reason, (await jobs.instance(name)).status.message];
  const boxed = await why('boxed'), stranger = await why('stranger');
  assert.equal(stranger[0], 'GPUSharingUnavailable');
  assert.match(stranger[1], /MPS serves one user at a time, and default\/(quarter|half)-/);
  if (boxed[0] !== 'StartFailed') assert.match(boxed[1], /images are no clients of MPS yet/); // else there is no runc here
});

it('a service that is killed is started again', async () => {
  const before = pid(), server = Number(await control('get_server_list'));
  assert.ok(server > 1);
  process.kill(before, 'SIGKILL');
  await eventually('another one runs', async () => existsSync(path.join(services()[0], 'p/nvidia-cuda-mps-control.pid')) && pid() !== before && (await control('get_server_list')) !== undefined, { timeoutMs: 20_000 });
  assert.ok(gone(server), 'its server would hold the GPU');
  await eventually('with the same limits', async () => (await control('get_default_active_thread_percentage')) === '50.0');
});

it('a share that is resized is one of the service too', async () => {
  const i = await jobs.instance('half');
  const gpusOf = i.status.gpus.map((g) => ({ ...g, milli: 400, memory: '300Mi' }));
  await call(c.url, 'PATCH', `/apis/atoll.dev/v1/namespaces/default/instances/${i.metadata.name}/status`, { status: { gpus: gpusOf } }, { 'Content-Type': 'application/merge-patch+json' });
  await eventually('it is in force', async () => (await control('get_default_active_thread_percentage')) === '40.0' && (await control('get_default_device_pinned_mem_limit 0')) === '300M');
});

it('it outlives the agent, and ends after its last client, with the GPU as it was', async () => {
  const before = pid();
  await c.killAgent('box');
  await c.startAgent('box');
  await jobs.start('third', ['alloc:1000', 'sleep:300']);
  assert.equal(await jobs.said('third'), 'alloc=0');
  assert.equal(pid(), before);
  const use = await eventually('its way is not forgotten', async () => (await jobs.instance('half')).status.gpuUse);
  assert.equal(use[0].mode, 'MPS');
  await jobs.remove('quarter', 'half', 'third');
  await eventually('it has ended', () => services().length === 0, { timeoutMs: 20_000 });
  assert.ok(gone(before), 'its process runs on');
  assert.equal(await gpus.peek(0, 'computeMode'), 0);
});

it('a service that dies while its agent is away is no service of the next agent', async () => {
  await jobs.start('lone', ['alloc:1000', 'sleep:60000']);
  await eventually('it runs', async () => /alloc=0/.test(await jobs.log('lone')));
  const before = pid();
  await c.killAgent('box');
  process.kill(before, 'SIGKILL');
  await c.startAgent('box');
  await eventually('another one runs', () => { try { return pid() !== before; } catch { return false; } }, { timeoutMs: 20_000 });
  await jobs.remove('lone');
  await eventually('it has ended', () => services().length === 0, { timeoutMs: 20_000 });
});
