// From the command line into an instance: commands, terminals, ports, logs; with bytes that are compared.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { Cluster, web, webRoot } from './lib/cluster.mjs';
import { ATOLL, eventually, Fleet, run } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const c = await Cluster.start(fleet, { n1: 'here' });
const env = { KUBECONFIG: c.server.kubeconfig, HOME: await fleet.dir('atoll-home'), PATH: process.env.PATH, NO_COLOR: '1' };
const root = await webRoot(fleet, 'hello from the instance\n');
const big = randomBytes(3 << 20);
await writeFile(path.join(root, 'big'), big);
await c.server.apply(web('site', c, { root, replicas: 2 }));
await c.ready('site');

const atoll = (args, options = {}) => run(ATOLL, args, { env, ...options });
const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

it('exec gives the output, the error output, the input and the exit status of a command', async () => {
  let r = await atoll(['exec', 'deployment/site', '--', 'sh', '-c', 'echo out; echo err >&2; exit 7']);
  assert.deepEqual([r.code, r.out], [7, 'out\n']);
  assert.match(r.err, /^err\n.*status 7/);
  r = await atoll(['exec', 'deployment', 'site', '-i', '--', 'sha256sum'], { input: big });
  assert.equal(r.out.split(' ')[0], sha(big));
  r = await atoll(['exec', 'deployment/site', '--', 'cat'], { input: 'is not passed on' });
  assert.deepEqual([r.code, r.out], [0, '']);
  const [one] = await c.instances('site');
  r = await atoll(['exec', one.metadata.name, '--', 'sh', '-c', 'echo $MARK']);
  assert.equal(r.out.trim(), c.mark);
});

it('exec with a terminal: the size is passed on, and ours is as before afterwards', async () => {
  const line = `stty rows 31 cols 97; ${ATOLL} exec -it deployment/site -- sh -c 'while [ "$(stty size)" = "0 0" ]; do sleep 0.02; done; stty size; tty; exit 3'; echo "status $?"; stty -a | tr ' ;' '\\n' | grep -x echo`;
  const r = await run('script', ['-qec', line, '/dev/null'], { env });
  assert.match(r.out, /31 97\r?\n(\^@)?\/dev\/pts\/\d+/); // script(1) may type what ends its own input
  assert.match(r.out, /status 3\r?\necho/);
});

it('what goes wrong with exec is told with a way on', async () => {
  let r = await atoll(['exec', 'deployment/site']);
  assert.deepEqual([r.code, /which command\? atoll exec deployment\/site -- COMMAND/.test(r.err)], [2, true]);
  r = await atoll(['exec', 'deployment/site', '--', '/no/such/program']);
  assert.notEqual(r.code, 0);
  assert.match(r.err, /no\/such\/program/);
  r = await atoll(['exec', 'nobody', '--', 'true']);
  assert.deepEqual([r.code, /instances\.atoll\.dev "nobody" not found/.test(r.err)], [4, true]);
  r = await atoll(['exec', 'site/here', '--', 'true']);
  assert.deepEqual([r.code, /has no instances/.test(r.err)], [4, true]);
});

it('a command ends when its client is interrupted', async () => {
  const mark = `sleep-${process.pid}-${Date.now()}`;
  const proc = fleet.start('atoll exec', ['exec', 'deployment/site', '--', 'sh', '-c', `echo begun; sleep 1000; : ${mark}`], { env });
  await proc.line(/begun/);
  await proc.stop({ signal: 'SIGINT' });
  const { processesWith } = await import('./lib/cluster.mjs');
  await eventually('the command is gone', () => processesWith(mark).length === 0);
});

it('port-forward carries many connections side by side, whole and in order', async () => {
  const proc = fleet.start('atoll port-forward', ['port-forward', 'deployment/site', ':'], { env });
  const [, port] = await proc.line(/^Forwarding from 127\.0\.0\.1:(\d+)$/m);
  const url = `http://127.0.0.1:${port}`;
  assert.equal(await (await fetch(`${url}/`)).text(), 'hello from the instance\n');
  await Promise.all(Array.from({ length: 12 }, async (_, i) => {
    const body = Buffer.from(await (await fetch(`${url}/${i % 2 ? 'big' : ''}`)).arrayBuffer());
    assert.equal(sha(body), i % 2 ? sha(big) : sha('hello from the instance\n'));
  }));
  // A client that says that nothing more comes still gets the answer.
  const half = await new Promise((resolve, reject) => {
    let text = '';
    const socket = net.connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true }, () => socket.end('GET / HTTP/1.0\r\n\r\n'));
    socket.on('data', (d) => (text += d));
    socket.on('end', () => resolve(text));
    socket.on('error', reject);
  });
  assert.match(half, /hello from the instance/);
  // Of a deployment, what is lost is replaced: new connections go to another instance.
  const [first] = await c.instances('site');
  assert.equal((await atoll(['delete', 'instance', first.metadata.name])).code, 0);
  await eventually('it goes on', async () => (await fetch(`${url}/`)).ok);
  await proc.stop({ signal: 'SIGINT' });
});

it('port-forward says what is wrong with a port, before and while it runs', async () => {
  const [one] = await eventually('both run', async () => {
    const all = (await c.instances('site')).filter((i) => i.status?.ready && !i.metadata.deletionTimestamp);
    return all.length === 2 && all;
  });
  const port = one.status.endpoint.split(':').at(-1);
  let r = await atoll(['port-forward', one.metadata.name, '8080:1']);
  assert.equal(r.code, 2);
  assert.match(r.err, new RegExp(`serves port ${port}, not 1`));
  r = await atoll(['port-forward', one.metadata.name, 'http']);
  assert.match(r.err, /"http" is no port: write 8080:9000/);
  const taken = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.on('listening', resolve));
  r = await atoll(['port-forward', one.metadata.name, `${taken.address().port}:`]);
  taken.close();
  assert.equal(r.code, 5);
  assert.match(r.err, /cannot listen on 127\.0\.0\.1:\d+ .*give another port/);
  const proc = fleet.start('atoll port-forward', ['port-forward', one.metadata.name, `:${port}`], { env });
  const [, local] = await proc.line(/^Forwarding from 127\.0\.0\.1:(\d+) -> \d+$/m);
  assert.equal((await atoll(['delete', 'instance', one.metadata.name])).code, 0);
  await assert.rejects(fetch(`http://127.0.0.1:${local}/`));
  await proc.line(/error: instances\.atoll\.dev "site-[^"]+" not found/, { stream: 'err' });
  await proc.stop({ signal: 'SIGTERM' });
});

it('logs by kind, by labels, since and with the time', async () => {
  const spec = { command: ['sh', '-c', 'echo "line of $MARK"; exec sleep 1000'], port: -1, readinessProbe: undefined };
  await c.server.apply(web('writer', c, { root, replicas: 2, spec }));
  await c.ready('writer');
  await eventually('both wrote', async () => (await atoll(['logs', 'deployment/writer'])).out.match(/^\[writer-\S+\] line of/gm)?.length === 2);
  const r = await atoll(['logs', '-l', 'atoll.dev/deployment=writer', '--since', '10m', '--timestamps']);
  assert.equal(r.out.match(/^\[writer-\S+\] 20\d\d-\S+Z line of/gm)?.length, 2, r.out + r.err);
  assert.match((await atoll(['logs'])).err, /whose logs\?/);
  assert.match((await atoll(['logs', 'x', '-l', 'a=b'])).err, /either a name or --selector/);
});
