// NetworkPolicy, written with kubectl: what an agent can keep it keeps, and what it cannot the policy says plainly.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFile, readFile, readlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { eventually, Fleet, KUBECTL, ROOT, run } from './lib/atoll.mjs';
import { condition, fetchFrom } from './lib/cluster.mjs';

const fleet = new Fleet();
const skip = process.getuid() === 0 ? false : 'networks of their own need root';
const it = (name, fn) => fleet.it(name, fn, { skip });
const has = (program) => {
  try {
    return execFileSync('sh', ['-c', `command -v ${program}`]).length > 0;
  } catch {
    return false;
  }
};
let kubeconfig;
let gateway;
let token;
let target;

const k = async (args, input) => {
  const r = await run(KUBECTL, Array.isArray(args) ? args : args.split(' '), { env: { KUBECONFIG: kubeconfig, HOME: path.dirname(kubeconfig) }, input });
  assert.equal(r.code, 0, `kubectl ${args}: ${r.err}`);
  return r.out;
};
const get = async (args) => JSON.parse(await k(`get ${args} -o json`));
const apply = (...objects) => k('apply -f -', objects.map((o) => JSON.stringify(o)).join('\n'));
const policy = (name, app, spec) => ({ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace: 'default' }, spec: { podSelector: { matchLabels: { app } }, ...spec } });
const CLOSED = { policyTypes: ['Ingress', 'Egress'] };
// Tries to connect, says what came of it, and stays.
const caller = (name, app, port = -1) => ({ apiVersion: 'atoll.dev/v1', kind: 'Instance', metadata: { name, namespace: 'default', labels: { app } }, spec: { port, command: ['bash', '-c', `if (exec 3<>/dev/tcp/127.0.0.1/${target}) 2>/dev/null; then echo reached; else echo cut off; fi; exec sleep 1000`], resources: { cpu: '10m', memory: '32Mi' } } });
const says = (name, words) => eventually(`${name} says ${words}`, async () => (await k(`logs ${name}`)).includes(words));
const running = (name) => eventually(`${name} runs`, async () => {
  const i = await get(`instances.atoll.dev ${name}`);
  return i.status?.phase === 'Running' && i.status.pid > 0 && i;
});
const enforced = (name, status) => eventually(`${name} is ${status}`, async () => {
  const p = await get(`networkpolicy ${name}`);
  return condition(p, 'Enforced') === status && p.status;
});
const notKept = (name, why) => eventually(`${name} is not kept: ${why}`, async () => {
  const c = (await get(`networkpolicy ${name}`)).status?.conditions?.[0];
  return c?.status === 'False' && why.test(c.message);
});
const network = (pid) => readlink(`/proc/${pid}/ns/net`);

it('an instance that may reach nobody reaches nobody, and its policy says that it is kept', async () => {
  const state = await fleet.dir('atoll-netpol');
  const models = await fleet.dir('atoll-models');
  await copyFile(path.join(ROOT, 'tests/models/double.onnx'), path.join(models, 'double.onnx'));
  const listener = createServer((s) => s.end());
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  listener.unref();
  target = listener.address().port;
  const dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--models', models, '--site', 'here']);
  await dev.line(/^ready dev$/m);
  kubeconfig = path.join(state, 'admin.kubeconfig');
  gateway = (await readFile(path.join(state, 'gateway'), 'utf8')).trim().replace('http://', '');
  token = (await readFile(path.join(state, 'inference.token'), 'utf8')).trim();
  await apply(policy('closed', 'closed', CLOSED));
  assert.equal((await enforced('closed', 'True')).instances, 0);
  await apply(caller('shut', 'closed'), caller('open', 'open'));
  await says('open', 'reached');
  await says('shut', 'cut off');
  const i = await running('shut');
  assert.equal(i.status.network.enforced, 'Yes');
  assert.deepEqual(i.status.network.policies, ['closed']);
  assert.notEqual(await network(i.status.pid), await network(process.pid));
  assert.equal(await network((await running('open')).status.pid), await network(process.pid));
  const status = await eventually('it is counted', async () => {
    const s = (await get('networkpolicy closed')).status;
    return s.instances === 1 && s.enforced === 1 && s;
  });
  assert.match(status.conditions[0].message, /all 1 instances are kept/);
  assert.match(await k('get networkpolicies'), /NAME +POD-SELECTOR +ENFORCED[\s\S]*closed +app=closed +True/);
  // A command beside it is in the same network.
  const out = await k(['exec', 'shut', '--', 'bash', '-c', `if (exec 3<>/dev/tcp/127.0.0.1/${target}) 2>/dev/null; then echo reached; else echo cut off; fi`]);
  assert.match(out, /cut off/);
});

it('a model server that is closed on all sides still answers through the gateway', async () => {
  await apply(policy('models', 'model', CLOSED), {
    apiVersion: 'atoll.dev/v1',
    kind: 'Deployment',
    metadata: { name: 'double', namespace: 'default' },
    spec: { replicas: 1, template: { metadata: { labels: { app: 'model' } }, spec: { runner: 'onnx', model: { name: 'double', uri: 'file:double.onnx' }, resources: { cpu: '100m', memory: '512Mi' } } } },
  });
  await eventually('it is ready', async () => condition(await get('deployments.atoll.dev double'), 'Ready') === 'True', { timeoutMs: 60_000 });
  const [i] = (await get('instances.atoll.dev -l app=model')).items;
  assert.notEqual(await network(i.status.pid), await network(process.pid));
  const body = { inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [1, 2] }] };
  const answer = await eventually('the gateway answers', async () => {
    const a = await fetchFrom(gateway, '/v2/models/double/infer', { method: 'POST', body: JSON.stringify(body), headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' } });
    return a.status === 200 && a;
  });
  assert.match(typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body), /outputs/);
  await enforced('models', 'True');
});

it('what cannot be kept is said plainly: in the policy and at the instance', async () => {
  await apply(policy('some', 'some', { ingress: [{ from: [{ podSelector: { matchLabels: { app: 'friend' } } }], ports: [{ port: 80 }] }] }));
  await apply(caller('half', 'some'));
  await says('half', 'reached');
  await notKept('some', /^NOT kept for 1 of 1 instances: half: instances share the network of their machine.*; left open: Ingress$/);
  const half = await running('half');
  assert.equal(half.status.network.enforced, 'No');
  assert.equal(half.status.network.ingressIsolated, true);
  assert.deepEqual(half.status.network.ingress.map((r) => r.port), [80]);
  // One that serves on the machine's port, closed: nobody could keep others from it.
  await apply(policy('serving', 'serving', CLOSED), caller('serves', 'serving', 0));
  await notKept('serving', /serves on a port of its machine.*; left open: Ingress and Egress$/);
  // A policy that comes later than what runs.
  await apply(caller('early', 'late'));
  await running('early');
  await apply(policy('late', 'late', CLOSED));
  await notKept('late', /started before the policy/);
  await k('delete instances.atoll.dev early');
  await apply(caller('early', 'late'));
  await says('early', 'cut off');
  await enforced('late', 'True');
  // And one that goes: nothing is said of it any more.
  await k('delete networkpolicy some');
  await eventually('nothing is said', async () => !(await get('instances.atoll.dev half')).status.network);
});

// Containers: the same, by the other driver.
const container = (name, app, image, args) => ({ ...caller(name, app), spec: { port: -1, image, command: ['/bin/sh'], args: ['-c', args ?? `if busybox nc -w 2 127.0.0.1 ${target} </dev/null; then echo reached; else echo cut off; fi; exec busybox sleep 1000`], resources: { cpu: '10m', memory: '32Mi' } } });

it('a container that may reach nobody reaches nobody, nor do commands in it; its rules that let some through are said not to be kept', async (t) => {
  if (!['runc', 'umoci', 'busybox'].every(has)) {
    t.skip('needs runc, umoci and busybox: tools/install-deps test');
    return;
  }
  const dir = await fleet.dir('atoll-image');
  const made = await run('sh', ['-euc', `umoci init --layout img; umoci new --image img:1; mkdir -p rootfs/bin; cp "$(command -v busybox)" rootfs/bin/busybox; ln -s busybox rootfs/bin/sh; umoci insert --image img:1 rootfs /`], { cwd: dir });
  assert.equal(made.code, 0, made.err);
  const image = `oci:${dir}/img:1`;
  await apply(policy('boxed', 'boxed', CLOSED), policy('boxes-some', 'boxes-some', { policyTypes: ['Egress'], egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8' } }], ports: [{ port: 443 }] }] }));
  await apply(container('box-shut', 'boxed', image), container('box-open', 'none', image), container('box-some', 'boxes-some', image));
  await says('box-open', 'reached');
  await says('box-shut', 'cut off');
  await says('box-some', 'reached');
  const shut = await running('box-shut');
  assert.equal(shut.status.network.enforced, 'Yes');
  assert.notEqual(await network(shut.status.pid), await network(process.pid));
  assert.match(await k(['exec', 'box-shut', '--', '/bin/sh', '-c', `busybox nc -w 2 127.0.0.1 ${target} </dev/null && echo reached || echo cut off`]), /cut off/);
  await enforced('boxed', 'True');
  await notKept('boxes-some', /^NOT kept for 1 of 1 instances: box-some: .*rules that let some through and not others cannot be kept; left open: Egress$/);
});
