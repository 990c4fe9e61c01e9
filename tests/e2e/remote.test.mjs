// Instances of another machine: an agent in a network namespace of its own, joined to this one by a cable. Gateways reach
// them through TLS 1.3 by the certificates of node and gateway, and by nothing else.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { after, test } from 'node:test';
import { eventually, Fleet, run, site } from './lib/atoll.mjs';
import { condition, listens } from './lib/cluster.mjs';
import { Gateway } from './lib/gateway.mjs';
import { call, credentials } from './lib/rest.mjs';

const NS = `atoll-${process.pid}`;
const third = process.pid % 200;
const HERE = `10.231.${third}.1`;
const THERE = `10.231.${third}.2`;
const cable = `at${process.pid}`;
const ip = async (words) => (await run('ip', words.split(' '))).code === 0;
const cabled = (await ip(`netns add ${NS}`)) && (await ip(`link add ${cable}a type veth peer name ${cable}b netns ${NS}`)) && (await ip(`addr add ${HERE}/30 dev ${cable}a`)) &&
  (await ip(`link set ${cable}a up`)) && (await ip(`-n ${NS} addr add ${THERE}/30 dev ${cable}b`)) && (await ip(`-n ${NS} link set ${cable}b up`)) && (await ip(`-n ${NS} link set lo up`));
const fleet = new Fleet();
after(() => ip(`netns del ${NS}`));

const SERVER = `
import http from 'node:http';
import http2 from 'node:http2';
import { createHash } from 'node:crypto';
let sessions = 0;
const server = (process.env.H2 ? http2 : http).createServer((req, res) => {
  const sum = createHash('sha256');
  let n = 0;
  req.on('data', (d) => { sum.update(d); n += d.length; });
  req.on('end', () => {
    if (req.url === '/events') {
      res.writeHead(200, { 'Content-Type': 'text/event-stream' });
      res.write('data: first\\n\\n');
      return void setTimeout(() => res.end('data: last\\n\\n'), 700);
    }
    if (req.url === '/big') return void res.end(Buffer.alloc(8 << 20, 'x'));
    res.end(JSON.stringify({ n, sum: sum.digest('hex'), host: req.headers.host, pid: process.pid, version: req.httpVersion, sessions }));
  });
});
server.on('session', () => sessions++);
server.on('upgrade', (req, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n');
  socket.on('data', (d) => socket.write(d));
  socket.on('end', () => socket.end());
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.env.PORT), process.env.ALL ? '0.0.0.0' : '127.0.0.1');
`;

if (!cabled) {
  test('instances of another machine', { skip: 'no network namespaces may be made here' }, () => {});
} else {
  const it = fleet.it.bind(fleet);
  const server = await fleet.server({ listen: `${HERE}:0` });
  const admin = { ...(await credentials(server.kubeconfig)), url: server.url };
  const script = await fleet.file('server.mjs', SERVER);
  const agents = {};
  await server.apply([site('far'), site('near')]);

  const token = async (role, where) => (await call(admin, 'POST', '/join/v1/tokens', { role, site: where, ttl: '1h' })).body;
  const startAgent = async (name, where, far) => {
    const a = (agents[name] ??= { state: await fleet.dir(`atoll-agent-${name}`), ...(await token('agent', where)) });
    const args = ['agent', '--server', server.url, '--token', a.token, '--ca-pin', a.caPin, '--name', name, '--state', a.state, '--listen-host', far ? THERE : HERE];
    const { ATOLL } = await import('./lib/atoll.mjs');
    a.proc = far ? fleet.start(`agent ${name}`, ['netns', 'exec', NS, ATOLL, ...args], { command: 'ip' }) : fleet.start(`agent ${name}`, args);
    await a.proc.line(/^ready agent /m);
    return a;
  };
  await startAgent('n1', 'far', true);
  await startAgent('n2', 'near', false);
  const pass = await token('gateway', 'near');
  const proc = fleet.start('gateway', ['gateway', '--server', server.url, '--token', pass.token, '--ca-pin', pass.caPin, '--name', 'g1', '--state', await fleet.dir('atoll-gateway'), '--listen', '127.0.0.1:0', '--threads', '2']);
  const gateway = new Gateway((await proc.line(/^ready gateway (\S+)$/m))[1], null, proc);

  await server.apply({
    apiVersion: 'atoll.dev/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'default' },
    spec: {
      replicas: 1,
      service: { path: '/', access: 'Public' },
      waiting: { timeout: '500ms' },
      template: { spec: { command: [process.execPath, script], placement: { sites: ['far'] }, resources: { cpu: '50m', memory: '64Mi' }, readinessProbe: { httpPath: '/', period: '50ms' }, terminationGracePeriod: '1s' } },
    },
  });
  const instance = async () => (await call(admin, 'GET', '/apis/atoll.dev/v1/instances')).body.items.find((i) => i.status?.ready);
  const status = (name, patch) => call(admin, 'PATCH', `/apis/atoll.dev/v1/namespaces/default/instances/${name}/status`, { status: patch }, { 'Content-Type': 'application/merge-patch+json' });
  const works = () => eventually('it answers', async () => (await gateway.ask('/x')).status === 200);
  await works();
  const one = await instance();

  it('requests go there through TLS, of any size and kind, and arrive as they were', async () => {
    assert.equal(one.spec.nodeName, 'n1');
    assert.match(one.status.tlsEndpoint, new RegExp(`^${THERE.replaceAll('.', '\\.')}:\\d+$`));
    assert.match(one.status.endpoint, /^127\.0\.0\.1:/);
    const body = Buffer.alloc(5 << 20, 'abc');
    const { createHash } = await import('node:crypto');
    const a = await gateway.ask('/sum', { body });
    assert.equal(JSON.parse(a.body).sum, createHash('sha256').update(body).digest('hex'));
    assert.equal((await gateway.ask('/big', { method: 'GET' })).body.length, 8 << 20);
    const all = await Promise.all(Array.from({ length: 200 }, (_, i) => gateway.ask(`/${i}`, { body: String(i) })));
    assert.deepEqual([...new Set(all.map((r) => r.status))], [200]);
    const began = Date.now();
    const first = await new Promise((resolve, reject) => http.get(new URL('/events', gateway.url), (res) => res.once('data', (d) => resolve({ at: Date.now() - began, text: String(d), res }))).on('error', reject));
    assert.equal(first.text, 'data: first\n\n');
    await once(first.res, 'end');
    const u = new URL(gateway.url);
    const socket = net.connect(Number(u.port), u.hostname);
    socket.write('GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n');
    assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 101 /);
    socket.write('through both');
    assert.equal(String((await once(socket, 'data'))[0]), 'through both');
    socket.destroy();
  });

  it('the port is not there without TLS, and the agent takes nobody but gateways', async () => {
    assert.equal(await listens(`${THERE}:${one.status.endpoint.split(':')[1]}`), false);
    const [host, port] = one.status.tlsEndpoint.split(':');
    const plain = net.connect(Number(port), host);
    plain.on('error', () => {});
    plain.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    let text = '';
    plain.on('data', (d) => (text += d));
    await once(plain, 'close');
    assert.doesNotMatch(text, /HTTP/);
    const identity = JSON.parse(await readFile(path.join(agents.n2.state, 'identity.json'), 'utf8'));
    const ask = (options) =>
      new Promise((resolve) => {
        let got = '';
        const s = tls.connect({ host, port: Number(port), servername: one.metadata.uid, ca: identity.ca, checkServerIdentity: () => undefined, ...options }, () => s.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'));
        s.on('data', (d) => (got += d));
        s.on('error', () => {});
        s.on('close', () => resolve(got));
      });
    assert.equal(await ask({}), '', 'no certificate');
    assert.equal(await ask({ cert: identity.certificate, key: identity.key }), '', "a node's");
    assert.equal(await ask({ cert: admin.cert, key: admin.key }), '', "an administrator's");
    assert.equal(await ask({ cert: identity.certificate, key: identity.key, maxVersion: 'TLSv1.2' }), '', 'TLS 1.2');
  });

  it('another node that pretends to have the instance gets no request', async () => {
    const relay = (await call(admin, 'GET', '/apis/atoll.dev/v1/nodes/n2')).status === 200 && (await findRelay());
    await status(one.metadata.name, { tlsEndpoint: relay });
    await eventually('the gateway refuses it', async () => (await gateway.ask('/x')).status === 503);
    await status(one.metadata.name, { tlsEndpoint: one.status.tlsEndpoint });
    await works();
  });

  // The address of n2's relay, told by an instance that runs there.
  async function findRelay() {
    await server.apply({ apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'other', namespace: 'default' }, spec: { replicas: 1, template: { spec: { command: [process.execPath, script], placement: { sites: ['near'] }, resources: { cpu: '50m', memory: '64Mi' }, readinessProbe: { httpPath: '/' } } } } });
    return eventually('it runs on n2', async () => (await call(admin, 'GET', '/apis/atoll.dev/v1/instances')).body.items.find((i) => i.spec.nodeName === 'n2' && i.status?.ready)?.status.tlsEndpoint);
  }

  it('a plain address on another machine is not used', async () => {
    let connections = 0;
    const trap = net.createServer((s) => {
      connections++;
      s.destroy();
    });
    trap.listen(0, HERE);
    await once(trap, 'listening');
    await status(one.metadata.name, { tlsEndpoint: null, loopback: null, endpoint: `${HERE}:${trap.address().port}` });
    await eventually('nobody is there', async () => (await gateway.ask('/x')).status === 503);
    await eventually('it is told', () => /has no address with TLS/.test(proc.err));
    assert.equal(connections, 0);
    await status(one.metadata.name, { tlsEndpoint: one.status.tlsEndpoint, loopback: one.status.loopback, endpoint: one.status.endpoint });
    trap.close();
    await works();
  });

  it('HTTP/2 goes through, many requests on one connection', async () => {
    await server.apply({ apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'two', namespace: 'default' }, spec: { replicas: 1, service: { path: '/two', access: 'Public' }, template: { spec: { command: [process.execPath, script], appProtocol: 'h2c', env: [{ name: 'H2', value: '1' }], placement: { sites: ['far'] }, resources: { cpu: '50m', memory: '64Mi' }, readinessProbe: { httpPath: '/', period: '50ms' } } } } });
    await eventually('it answers', async () => (await gateway.ask('/two/x')).status === 200);
    const all = (await Promise.all(Array.from({ length: 80 }, (_, i) => gateway.ask(`/two/${i}`, { body: 'x'.repeat(i) })))).map((a) => JSON.parse(a.body));
    assert.deepEqual([...new Set(all.map((a) => a.version))], ['2.0']);
    assert.deepEqual(all.map((a) => a.n), all.map((_, i) => i));
    assert.ok(all.at(-1).sessions <= 4, `${all.at(-1).sessions} connections: the agent's own, and one of each loop`);
    await call(admin, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/deployments/two');
  });

  it('an agent that is killed and comes back goes on taking requests for what runs', async () => {
    const { pid } = JSON.parse((await gateway.ask('/x')).body);
    await agents.n1.proc.kill('SIGKILL');
    await startAgent('n1', 'far', true);
    await works();
    assert.equal(JSON.parse((await gateway.ask('/x')).body).pid, pid);
  });

  it('afterwards nothing is left', async () => {
    await call(admin, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/deployments/web');
    await call(admin, 'DELETE', '/apis/atoll.dev/v1/namespaces/default/deployments/other');
    await eventually('they are gone', async () => (await call(admin, 'GET', '/apis/atoll.dev/v1/instances')).body.items.length === 0);
    assert.equal(condition((await call(admin, 'GET', '/apis/atoll.dev/v1/nodes/n1')).body, 'Ready'), 'True');
  });
}
