// Deployments and jobs on real agents: what runs is what was asked for, whatever is killed meanwhile.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { Cluster, condition, fetchFrom, listens, processesWith, web, webRoot } from './lib/cluster.mjs';
import { eventually, Fleet, run } from './lib/atoll.mjs';
import { freePort } from './lib/etcd.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;

before(async () => {
  c = await Cluster.start(fleet, { 'onprem-1': 'onprem', 'edge-1': 'edge', 'cloud-1': 'cloud' });
});

const alive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

it('a deployment of a process becomes ready on every site and serves', async () => {
  await c.server.apply(web('hello', c, { replicas: 3, root: await webRoot(fleet, 'one') }));
  const d = await c.ready('hello');
  assert.equal(d.status.readyReplicas, 3);
  const instances = await c.instances('hello');
  assert.deepEqual(instances.map((i) => i.status.site).sort(), ['cloud', 'edge', 'onprem']);
  for (const i of instances) {
    assert.equal(i.status.phase, 'Running');
    assert.match(i.status.decision.message, /^placed on /);
    assert.match(i.metadata.name, /^hello-[0-9a-f]{5}-[a-z0-9]{5}$/);
    assert.deepEqual(await fetchFrom(i.status.endpoint), { status: 200, body: 'one' });
    assert.ok(alive(i.status.pid));
  }
});

it('a rolling update under traffic always leaves all replicas to answer', async () => {
  const root = await webRoot(fleet, 'two');
  let done = false;
  let answered = 0;
  let leastReady = 3;
  const failures = [];
  const traffic = (async () => {
    while (!done) {
      const ready = (await c.instances('hello')).filter((i) => i.status?.ready && !i.metadata.deletionTimestamp);
      leastReady = Math.min(leastReady, ready.length);
      for (const i of ready) {
        const r = await fetchFrom(i.status.endpoint);
        const still = (await c.instances('hello')).find((x) => x.metadata.uid === i.metadata.uid);
        if (r.status === 200) answered++;
        else if (still && !still.metadata.deletionTimestamp) failures.push(r); // else it was on its way out
      }
    }
  })();
  await c.patch('deployments', 'hello', { spec: { template: { spec: { command: ['busybox', 'httpd', '-f', '-p', '127.0.0.1:$(PORT)', '-h', root] } } } });
  await c.ready('hello', { timeoutMs: 60_000 });
  done = true;
  await traffic;
  assert.deepEqual(failures, []);
  assert.ok(answered > 0);
  assert.equal(leastReady, 3);
  const instances = (await c.instances('hello')).filter((i) => !i.metadata.deletionTimestamp);
  assert.equal(instances.length, 3);
  for (const i of instances) assert.equal((await fetchFrom(i.status.endpoint)).body, 'two');
});

it('scaling down and deleting end the processes', async () => {
  await c.patch('deployments', 'hello', { spec: { replicas: 1 } });
  await eventually('one is left', async () => (await c.instances('hello')).length === 1);
  await eventually('one process is left', () => processesWith(c.mark).filter((p) => p.args.includes('httpd')).length === 1);
  await c.server.k('delete deployment hello');
  await eventually('nothing is left', async () => (await c.instances('hello')).length === 0 && processesWith(c.mark).length === 0);
});

it('a job runs to completion, trying again what fails', async () => {
  const dir = await fleet.dir('atoll-job');
  // Fails until it has been tried twice: mkdir is atomic.
  const script = `mkdir ${dir}/first 2>/dev/null && exit 3; mkdir ${dir}/second 2>/dev/null && exit 4; echo done by $ATOLL_INSTANCE >> ${dir}/out`;
  await c.server.apply({
    apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: 'work' },
    spec: { completions: 3, parallelism: 2, template: { spec: { command: ['sh', '-c', `umask 0; ${script}`], port: -1, resources: { cpu: '100m' } } } },
  });
  await run('chmod', ['0777', dir]);
  await c.server.k('wait job/work --for=condition=Complete --timeout=60s');
  const job = await c.get('jobs', 'work');
  assert.equal(job.status.succeeded, 3);
  assert.equal(job.status.failed, 2);
  assert.equal(job.status.active, 0);
  const codes = (await c.instances('work')).map((i) => i.status.exitCode ?? 0).sort();
  assert.deepEqual(codes, [0, 0, 0, 3, 4]);
  assert.equal((await readFile(path.join(dir, 'out'), 'utf8')).trim().split('\n').length, 3);
  await c.server.k('delete job work');
  await eventually('its instances go', async () => (await c.instances('work')).length === 0);
});

it('a job that always fails gives up and says so', async () => {
  await c.server.apply({
    apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: 'hopeless' },
    spec: { backoffLimit: 1, template: { spec: { command: ['sh', '-c', 'exit 7'], port: -1 } } },
  });
  await c.server.k('wait job/hopeless --for=condition=Failed --timeout=60s');
  const job = await c.get('jobs', 'hopeless');
  assert.equal(job.status.conditions.find((x) => x.type === 'Failed').reason, 'BackoffLimitExceeded');
  assert.equal((await c.instances('hopeless')).length, 2);
});

it('an agent that is killed and restarted keeps its instances, same process', async () => {
  await c.server.apply(web('steady', c, { replicas: 3, root: await webRoot(fleet, 'steady') }));
  await c.ready('steady');
  const earlier = Object.fromEntries((await c.instances('steady')).map((i) => [i.metadata.uid, i.status.pid]));
  await c.killAgent('edge-1');
  await c.startAgent('edge-1');
  const edge = (await c.instances('steady')).find((i) => i.spec.nodeName === 'edge-1');
  await eventually('the agent reports again', async () => condition((await c.list('nodes')).find((n) => n.metadata.name === 'edge-1'), 'Ready') === 'True');
  await c.ready('steady');
  const later = Object.fromEntries((await c.instances('steady')).map((i) => [i.metadata.uid, i.status.pid]));
  assert.deepEqual(later, earlier);
  assert.deepEqual(await fetchFrom(edge.status.endpoint), { status: 200, body: 'steady' });
  // httpd answers each request in a child of its own, which may not have ended yet.
  await eventually('three processes, no second one of any', () => processesWith(c.mark).filter((p) => p.args.includes('httpd')).length === 3);
});

it('a killed agent is noticed and its instances are replaced elsewhere', async () => {
  const gone = (await c.instances('steady')).find((i) => i.spec.nodeName === 'onprem-1');
  const start = Date.now();
  await c.killAgent('onprem-1');
  await eventually('its instance is replaced', async () => {
    const all = await c.instances('steady');
    return all.filter((i) => i.status?.ready && i.spec.nodeName !== 'onprem-1').length === 3 && !all.some((i) => i.metadata.uid === gone.metadata.uid);
  });
  assert.ok(Date.now() - start < 10_000, `took ${Date.now() - start} ms`);
  const node = (await c.list('nodes')).find((n) => n.metadata.name === 'onprem-1');
  assert.equal(condition(node, 'Ready'), 'False');
  await c.startAgent('onprem-1'); // it finds that nobody wants its task any more
  await eventually('the old process is ended', () => !alive(gone.status.pid));
  await eventually('no more than three run', () => processesWith(c.mark).filter((p) => p.args.includes('httpd')).length === 3);
});

it('a killed server comes back and everything is as it was, without a second run', async () => {
  const root = await webRoot(fleet, 'more');
  const earlier = (await c.instances('steady')).map((i) => [i.metadata.uid, i.status.pid]).sort();
  await c.server.apply(web('more', c, { replicas: 3, root }));
  await c.server.proc.kill('SIGKILL'); // in the middle of it
  await c.server.start();
  await c.ready('more', { timeoutMs: 60_000 });
  await c.ready('steady', { timeoutMs: 60_000 });
  assert.deepEqual((await c.instances('steady')).map((i) => [i.metadata.uid, i.status.pid]).sort(), earlier);
  assert.equal((await c.instances('more')).length, 3);
  await eventually('six processes run', () => processesWith(c.mark).filter((p) => p.args.includes('httpd')).length === 6);
  await c.server.k('delete deployment more steady');
  await eventually('nothing is left', () => processesWith(c.mark).length === 0);
});

it('an instance that fits nowhere says why, and starts when it can', async () => {
  await c.server.apply({ ...web('big', c, { replicas: 1, root: await webRoot(fleet, 'big'), cpu: '1000' }) });
  const i = await eventually('the reason is told', async () => (await c.instances('big'))[0]?.status?.message && (await c.instances('big'))[0]);
  assert.equal(i.status.reason, 'NeverFits');
  assert.match(i.status.message, /^0 of 3 nodes fit: 3 NotEnoughCPU \(cloud-1: .* cpu free, 1k? ?.*wanted\)$/);
  await eventually('an event tells', async () => /FailedScheduling/.test(await c.server.k('get events')));
  await c.patch('deployments', 'big', { spec: { template: { spec: { resources: { cpu: '100m' } } } } });
  await c.ready('big');
  await c.server.k('delete deployment big');
});

// An image made here from busybox; fn gets its folder (layout img, tag 1) and a shell in it.
async function withImage(text, fn) {
  const dir = await mkdtemp(path.join(process.env.TMPDIR ?? '/tmp', 'atoll-image-'));
  const sh = async (script) => {
    const r = await run('sh', ['-euc', script], { cwd: dir });
    assert.equal(r.code, 0, r.out + r.err);
  };
  try {
    await writeFile(path.join(dir, 'index.html'), text);
    await sh(`umoci init --layout img; umoci new --image img:1
      mkdir -p rootfs/bin rootfs/www rootfs/tmp; cp "$(command -v busybox)" rootfs/bin/busybox; cp index.html rootfs/www/
      ln -s busybox rootfs/bin/httpd; ln -s busybox rootfs/bin/sh
      umoci insert --image img:1 rootfs /
      umoci config --image img:1 --config.entrypoint /bin/httpd --config.cmd -f`);
    await fn(dir, sh);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function runsFrom(image, text) {
  const d = web('box', c, { replicas: 1, root: '/www' });
  Object.assign(d.spec.template.spec, { image, command: undefined, args: ['-f', '-p', '127.0.0.1:$(PORT)', '-h', '/www'] });
  await c.server.apply(d);
  await c.ready('box', { timeoutMs: 60_000 });
  const [i] = await c.instances('box');
  assert.deepEqual(await fetchFrom(i.status.endpoint), { status: 200, body: text });
  await c.server.k('delete deployment box');
  await eventually('its container goes', async () => !(await listens(i.status.endpoint)) && processesWith(c.mark).length === 0);
}

it('an instance in a container runs from an image layout', async () => {
  await withImage('from a container', async (dir) => runsFrom(`oci:${dir}/img:1`, 'from a container'));
});

it('an instance in a container runs from a registry, by tag and by digest', async () => {
  await withImage('from a registry', async (dir, sh) => {
    const port = await freePort();
    await writeFile(path.join(dir, 'registry.yml'), `version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: ${dir}/registry}}
http: {addr: '127.0.0.1:${port}'}
`);
    const registry = spawn('docker-registry', ['serve', path.join(dir, 'registry.yml')], { stdio: 'ignore' });
    try {
      await eventually('the registry serves', async () => listens(`127.0.0.1:${port}`));
      await sh(`skopeo copy --quiet --dest-tls-verify=false --digestfile digest oci:img:1 docker://127.0.0.1:${port}/lib/web:1`);
      await runsFrom(`docker://127.0.0.1:${port}/lib/web:1`, 'from a registry');
      const digest = (await readFile(path.join(dir, 'digest'), 'utf8')).trim();
      await runsFrom(`docker://127.0.0.1:${port}/lib/web@${digest}`, 'from a registry');
    } finally {
      registry.kill();
    }
  });
});
