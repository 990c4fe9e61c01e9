// What runs, as core v1 Pods: stock kubectl's get, describe, logs, exec and delete, and client-node's Exec.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { before } from 'node:test';
import { Attach, CoreV1Api, Exec, KubeConfig, Log, PortForward } from '@kubernetes/client-node';
import { Cluster } from '../e2e/lib/cluster.mjs';
import { deployment, eventually, Fleet, KUBECTL, KUBECTLS, run } from '../e2e/lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;
let s;
let pod;

before(async () => {
  c = await Cluster.start(fleet, { 'edge-1': 'edge' });
  s = c.server;
  const loop = 'n=0; while true; do echo line $n; n=$((n+1)); sleep 0.2; done';
  await s.apply(
    deployment('talker', {
      replicas: 1,
      template: {
        metadata: { labels: { app: 'talker' } },
        spec: { command: ['sh', '-c', loop], env: [{ name: 'GREETING', value: 'hello' }], port: -1, resources: { cpu: '50m' }, terminationGracePeriod: '1s' },
      },
    }),
  );
  await c.ready('talker');
  pod = (await c.instances('talker'))[0].metadata.name;
});

const lines = (text) => text.trim().split('\n');

it('get, describe and wait show what runs', async () => {
  const table = lines(await s.k('get pods'));
  assert.match(table[0], /^NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE$/);
  assert.match(table[1], new RegExp(`^${pod}\\s+1/1\\s+Running\\s+0\\s+\\d+s$`));
  assert.match(lines(await s.k('get po -o wide -A'))[0], /^NAMESPACE\s+NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE\s+IP\s+NODE$/);
  assert.equal(await s.k('get pods -o jsonpath={.items[0].status.phase}'), 'Running');
  assert.equal(await s.k('get pods -l app=talker --field-selector spec.nodeName=edge-1 -o name'), `pod/${pod}\n`);
  const text = await s.k(`describe pod ${pod}`);
  assert.match(text, /^Node:\s+edge-1/m);
  assert.match(text, /^Status:\s+Running$/m);
  assert.match(text, /GREETING:\s+hello/);
  assert.match(text, /Ready\s+True/);
  assert.match(await s.k(`wait --for=condition=Ready pod/${pod} --timeout=10s`), /condition met/);
  assert.equal(await s.k('auth can-i create pods/exec'), 'yes\n');
  await s.kFails('get pod none', /pods "none" not found/);
});

it('logs come whole, cut and followed', async () => {
  await eventually('a few lines', async () => lines(await s.k(`logs ${pod}`)).length > 5);
  assert.equal(lines(await s.k(`logs ${pod}`))[0], 'line 0');
  assert.equal(lines(await s.k(`logs ${pod} --tail=2`)).length, 2);
  assert.match(await s.k('logs -l app=talker --tail=1 --prefix'), new RegExp(`^\\[pod/${pod}/main\\] line \\d+$`, 'm'));
  const follow = await s.kubectlStart(`logs -f ${pod} --tail=1`);
  const [, from] = await follow.line(/^line (\d+)$/m);
  await follow.line(new RegExp(`^line ${Number(from) + 5}$`, 'm'));
  await follow.stop({ signal: 'SIGINT' }).catch(() => {});
  await s.kFails(`logs ${pod} --previous`, /not kept apart/);
});

it('logs know when a line was written', async () => {
  const stamped = lines(await s.k(`logs ${pod} --timestamps --tail=3`));
  assert.equal(stamped.length, 3);
  for (const line of stamped) {
    const [, when] = /^(\S+) line \d+$/.exec(line);
    assert.ok(Math.abs(Date.now() - Date.parse(when)) < 10_000, line);
  }
  await eventually('it has run for a while', async () => lines(await s.k(`logs ${pod}`)).length > 30, { timeoutMs: 30_000 });
  const all = lines(await s.k(`logs ${pod}`)).length;
  const since = lines(await s.k(`logs ${pod} --since=2s`)).length;
  assert.ok(since >= 5 && since < all, `${since} of ${all}`);
});

// kubectl before 1.30 speaks SPDY, later ones WebSocket: one of each.
for (const kubectl of KUBECTLS.filter((k, i) => i === 0 || k.minor < 30 || process.env.ATOLL_EVERY_KUBECTL)) {
  const command = kubectl.path;

  it(`exec gives output, exit status, input, environment and a terminal: ${kubectl.version}`, async () => {
    const k = (args, options) => s.k(args, { command, ...options });
    assert.equal(await k(['exec', pod, '--', 'echo', 'a b', '$GREETING']), 'a b $GREETING\n');
    assert.equal(await k(['exec', pod, '--', 'sh', '-c', 'echo $GREETING $ATOLL_NODE']), 'hello edge-1\n');
    const failed = await s.kubectl(['exec', pod, '--', 'sh', '-c', 'echo out; echo err >&2; exit 3'], { command });
    assert.equal(failed.code, 3);
    assert.equal(failed.out, 'out\n');
    assert.match(failed.err, /^err$/m);
    assert.match(failed.err, /exit code 3/);
    assert.equal(await k(['exec', '-i', pod, '--', 'cat'], { input: 'through and back\n' }), 'through and back\n');
    assert.equal(await k(['exec', '-i', pod, '--', 'true'], { input: 'nobody reads this\n' }), '');
    // kubectl asks for a terminal only where it has one itself: script(1) gives it one.
    const terminal = await run('script', ['-qec', `stty rows 30 cols 99; ${command} exec -it ${pod} -- sh -c 'test -t 0 && tty && sleep 0.5 && stty size'`, '/dev/null'], { env: { KUBECONFIG: s.kubeconfig } });
    assert.match(terminal.out, /\/dev\/pts\/\d+/);
    assert.match(terminal.out, /30 99/);
    assert.equal(terminal.code, 0, terminal.out);
    await s.kFails(['exec', pod, '--', 'no-such-program'], /not on PATH|No such file/, { command });
    await s.kFails(['exec', 'none', '--', 'true'], /not found/, { command });
  });

  it(`exec carries megabytes both ways without a loss: ${kubectl.version}`, async () => {
    const input = randomBytes(6 << 20).toString('base64');
    const r = await s.kubectl(['exec', '-i', pod, '--', 'sha256sum'], { input, command });
    assert.equal(r.code, 0, r.err);
    assert.match(r.out, new RegExp(`^${createHash('sha256').update(input).digest('hex')}`));
    const out = await run('sh', ['-c', `${command} exec ${pod} -- head -c 8000000 /dev/zero | sha256sum`], { env: { KUBECONFIG: s.kubeconfig } });
    assert.match(out.out, new RegExp(`^${createHash('sha256').update(Buffer.alloc(8_000_000)).digest('hex')}`), out.err);
  });

  it(`cp brings files there and back: ${kubectl.version}`, async () => {
    const dir = await fleet.dir('atoll-cp');
    const bytes = randomBytes(300_000);
    await writeFile(path.join(dir, 'there'), bytes);
    const inside = path.join(await fleet.dir('atoll-cp-inside'), 'file');
    await s.k(['cp', path.join(dir, 'there'), `${pod}:${inside}`], { command });
    assert.deepEqual(await readFile(inside), bytes);
    await s.k(['cp', `${pod}:${inside}`, path.join(dir, 'back')], { command });
    assert.deepEqual(await readFile(path.join(dir, 'back')), bytes);
  });

  it(`attach shows what is written from now on: ${kubectl.version}`, async () => {
    const attached = await s.kubectlStart(`attach ${pod}`, { command });
    const [, from] = await attached.line(/^line (\d+)$/m);
    const written = lines(await s.k(`logs ${pod}`)).length;
    assert.ok(Number(from) > 5 && Number(from) <= written, `began with line ${from} of ${written}`);
    await attached.line(new RegExp(`^line ${Number(from) + 3}$`, 'm'));
    await attached.stop({ signal: 'SIGINT' }).catch(() => {});
    await s.kFails(['attach', 'none'], /not found/, { command });
  });
}

it('attach ends when the instance does', async () => {
  const words = ['sh', '-c', 'for i in 1 2 3 4 5 6; do echo word $i; sleep 0.3; done'];
  await s.apply({ apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: 'short' }, spec: { template: { spec: { command: words, resources: { cpu: '50m' } } } } });
  const name = await eventually('it runs', async () => (await s.get('pods -l atoll.dev/job=short')).items.find((p) => p.status.phase === 'Running')?.metadata.name);
  const r = await s.kubectl(['attach', name]);
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, /^word 6$/m);
  await s.k('delete job.atoll.dev short');
});

it('exec runs as the instance does, and ends with its client', async () => {
  const { pid } = (await c.get('instances', pod)).status;
  const ids = (text) => /^Uid:\s+(.*)$/m.exec(text)[1];
  const inside = await s.k(['exec', pod, '--', 'cat', '/proc/self/status']);
  assert.equal(ids(inside), ids(await readFile(`/proc/${pid}/status`, 'utf8')));
  assert.match(inside, /^NoNewPrivs:\s+1$/m);
  assert.equal(await s.k(['exec', pod, '--', 'cat', '/proc/self/cgroup']), await readFile(`/proc/${pid}/cgroup`, 'utf8'));
  const mark = `97${process.pid % 1000}.5`;
  const long = await s.kubectlStart(`exec ${pod} -- sleep ${mark}`);
  const runs = async () => (await s.kubectl(['exec', pod, '--', 'sh', '-c', `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '`])).out.includes(`sleep ${mark}`);
  await eventually('it runs', runs);
  await long.kill('SIGKILL');
  await eventually('it is gone', async () => !(await runs()));
});

it('client-node reads logs and runs commands', async () => {
  const config = new KubeConfig();
  config.loadFromFile(s.kubeconfig);
  const list = await config.makeApiClient(CoreV1Api).listNamespacedPod({ namespace: 'default' });
  assert.equal(list.items[0].metadata.name, pod);
  const out = new PassThrough();
  let text = '';
  out.on('data', (d) => (text += d));
  const status = await new Promise((resolve, reject) => {
    new Exec(config).exec('default', pod, 'main', ['sh', '-c', 'echo from node; exit 4'], out, null, null, false, resolve).catch(reject);
  });
  assert.equal(status.status, 'Failure');
  assert.equal(status.details.causes[0].message, '4');
  await eventually('output', async () => text === 'from node\n');
  const log = new PassThrough();
  let logged = '';
  log.on('data', (d) => (logged += d));
  await new Log(config).log('default', pod, 'main', log, { tailLines: 1 });
  await eventually('a line', async () => /^line \d+\n$/.test(logged));
  const live = new PassThrough();
  let seen = '';
  live.on('data', (d) => (seen += d));
  const ws = await new Attach(config).attach('default', pod, 'main', live, null, null, false);
  await eventually('lines', async () => lines(seen).length > 2);
  ws.close();
});

// A small web server in an instance, and its pod; made once.
const webPods = {};
const webPod = (name) => (webPods[name] ??= makeWebPod(name));
async function makeWebPod(name, spec = {}) {
  const root = await fleet.dir('atoll-web');
  await writeFile(path.join(root, 'index.html'), 'through the tunnel\n');
  await writeFile(path.join(root, 'big'), randomBytes(3 << 20));
  await s.apply(
    deployment(name, {
      replicas: 1,
      template: {
        metadata: { labels: { app: name } },
        spec: { command: ['busybox', 'httpd', '-f', '-p', '127.0.0.1:$(PORT)', '-h', root], resources: { cpu: '50m' }, readinessProbe: { httpPath: '/', period: '100ms' }, terminationGracePeriod: '1s', ...spec },
      },
    }),
  );
  await c.ready(name);
  const instance = (await c.instances(name))[0];
  return { name: instance.metadata.name, port: Number(instance.status.endpoint.split(':').at(-1)), big: await readFile(path.join(root, 'big')) };
}

const digest = (bytes) => createHash('sha256').update(bytes).digest('hex');

for (const kubectl of KUBECTLS) {
  it(`port-forward carries connections side by side: ${kubectl.version}`, async () => {
    const web = await webPod('web');
    assert.equal(await s.k(`get pod ${web.name} -o jsonpath={.spec.containers[0].ports[0].containerPort}`), String(web.port));
    const forward = await s.kubectlStart(`port-forward pod/${web.name} :${web.port}`, { command: kubectl.path });
    const [, port] = await forward.line(/^Forwarding from 127\.0\.0\.1:(\d+) ->/m);
    const url = `http://127.0.0.1:${port}/`;
    assert.equal(await (await fetch(url)).text(), 'through the tunnel\n');
    const many = await Promise.all(Array.from({ length: 8 }, async (_, i) => (i % 2 ? (await fetch(url)).text() : digest(Buffer.from(await (await fetch(`${url}big`)).arrayBuffer())))));
    many.forEach((got, i) => assert.equal(got, i % 2 ? 'through the tunnel\n' : digest(web.big)));
    await forward.stop({ signal: 'SIGINT' }).catch(() => {});
    const wrong = await s.kubectlStart(`port-forward pod/${web.name} :1`, { command: kubectl.path });
    const [, closed] = await wrong.line(/^Forwarding from 127\.0\.0\.1:(\d+) ->/m);
    await assert.rejects(fetch(`http://127.0.0.1:${closed}/`));
    await wrong.line(/the instance serves port \d+, not 1/, { stream: 'err' });
    await wrong.stop({ signal: 'SIGINT' }).catch(() => {});
  });
}

it('client-node forwards a port', async () => {
  const web = await webPod('web');
  const config = new KubeConfig();
  config.loadFromFile(s.kubeconfig);
  const [input, output, error] = [new PassThrough(), new PassThrough(), new PassThrough()];
  let text = '';
  output.on('data', (d) => (text += d));
  const ws = await new PortForward(config, true).portForward('default', web.name, [web.port], output, error, input);
  input.write('GET / HTTP/1.0\r\n\r\n');
  await eventually('the answer', async () => text.endsWith('through the tunnel\n'));
  ws.close();
  await s.kFails(['port-forward', 'pod/none', ':80'], /not found/);
});

it('deleting a pod ends the instance, and its deployment makes another', async () => {
  assert.match(await s.k(`delete pod ${pod}`), /deleted/);
  await s.kFails(`get instance ${pod}`, /not found/);
  await eventually('another takes its place', async () => {
    const pods = (await s.get('pods -l app=talker')).items;
    return pods.length === 1 && pods[0].metadata.name !== pod && pods[0].status.phase === 'Running';
  });
});
