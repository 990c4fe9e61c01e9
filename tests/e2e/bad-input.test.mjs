// What users and machines get wrong: each gets a clear answer that names the thing, and nothing changes.
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { before } from 'node:test';
import { ATOLL, configMap, deployment, eventually, Fleet, run, site, yaml } from './lib/atoll.mjs';
import { call, certificateRequest, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;
let admin;

before(async () => {
  s = await fleet.server();
  admin = await credentials(s.kubeconfig);
});

const withoutCertificate = () => ({ url: admin.url, ca: admin.ca });

// Through the command line, with a name that must not exist afterwards.
async function atollRefuses(object, pattern) {
  const r = await s.atoll(['apply', '-f', '-'], { input: yaml(object) });
  assert.notEqual(r.code, 0, `should have been refused:\n${r.out}`);
  assert.match(r.err + r.out, pattern);
  assert.doesNotMatch(r.out, /created/);
  assert.notEqual((await s.atoll('get deployment bad')).code, 0);
}

it('atoll apply: an unknown field', () => atollRefuses(deployment('bad', { replica: 1 }), /spec\.replica: unknown field/));

it('atoll apply: a wrong type', () => atollRefuses(deployment('bad', { replicas: 'two' }), /spec\.replicas/));

it('atoll apply: a bad quantity', () =>
  atollRefuses(deployment('bad', { template: { spec: { command: ['x'], resources: { memory: '5Zi' } } } }), /spec\.template\.spec\.resources\.memory.*5Zi/s));

it('atoll apply: no YAML, and an unknown kind', async () => {
  const broken = await s.atoll(['apply', '-f', '-'], { input: 'a: [1,\nb: }' });
  assert.notEqual(broken.code, 0);
  assert.match(broken.err, /line \d+/);
  const unknown = await s.atoll(['apply', '-f', '-'], { input: yaml({ apiVersion: 'atoll.dev/v1', kind: 'Sight', metadata: { name: 'x' } }) });
  assert.notEqual(unknown.code, 0);
  assert.match(unknown.err + unknown.out, /Sight/);
  const nothing = await s.atoll(['apply', '-f', '/does/not/exist.yaml']);
  assert.notEqual(nothing.code, 0);
  assert.match(nothing.err, /\/does\/not\/exist\.yaml/);
});

it('atoll apply: of two documents the second is bad; what became of the first is said', async () => {
  const r = await s.atoll(['apply', '-f', '-'], { input: yaml([configMap('first'), deployment('second', { replicas: -1 })]) });
  assert.notEqual(r.code, 0);
  assert.match(r.err + r.out, /spec\.replicas/);
  assert.notEqual((await s.kubectl('get deploy second')).code, 0);
  const applied = (await s.kubectl('get cm first')).code === 0;
  assert.equal(applied, /first/.test(r.out) && /created/.test(r.out), `first ${applied ? 'is there' : 'is not there'}, but the output was:\n${r.out}${r.err}`);
});

it('kubectl apply: of two documents the second is bad; what became of the first is said', async () => {
  const r = await s.kubectl(['apply', '-f', '-'], { input: yaml([configMap('kfirst'), deployment('ksecond', { replicas: -1 })]) });
  assert.equal(r.code, 1);
  assert.equal(r.out, 'configmap/kfirst created\n');
  assert.match(r.err, /The Deployment "ksecond" is invalid: spec\.replicas: Invalid value: -1/);
});

it('bodies that are no objects are refused as such', async () => {
  const sites = '/apis/atoll.dev/v1/sites';
  const refused = async (body, status, pattern, headers) => {
    const r = await call(admin, 'POST', `${sites}?fieldValidation=Strict`, body, headers);
    assert.equal(r.status, status, JSON.stringify(r.body));
    assert.equal(r.body.kind, 'Status');
    assert.match(r.body.message, pattern);
  };
  await refused('{"a":', 400, /./);
  await refused('[]', 400, /object/);
  await refused('{"a":1,"a":2}', 400, /duplicate/);
  await refused(`${'['.repeat(5000)}${']'.repeat(5000)}`, 400, /./);
  await refused(deployment('x'), 400, /Deployment|kind/);
  await refused('a', 415, /./, { 'Content-Type': 'text/csv' });
  const big = await call(admin, 'POST', '/api/v1/namespaces/default/configmaps', configMap('big', { a: 'x'.repeat(2 << 20) }));
  assert.equal(big.status, 413, JSON.stringify(big.body));
  const huge = await call(admin, 'POST', '/api/v1/namespaces/default/configmaps', configMap('huge', { a: 'x'.repeat(8 << 20) })).catch((e) => e);
  assert.ok(huge instanceof Error || huge.status === 413, String(huge.status));
  assert.equal((await call(admin, 'GET', sites)).status, 200, 'the server still serves');
});

// Runs `atoll server` until it gives up; returns how.
async function serverFails(args, pattern) {
  const r = await run(ATOLL, ['server', ...args], { timeoutMs: 20_000 });
  assert.notEqual(r.code, 0, r.out);
  assert.notEqual(r.code, null, `had to be killed:\n${r.err}`);
  assert.equal(r.out, '', 'nothing may say that it is ready');
  assert.match(r.err, pattern);
  return r;
}

it('a port that is taken', async () => {
  const other = createServer();
  await new Promise((resolve) => other.listen(0, '127.0.0.1', resolve));
  const address = `127.0.0.1:${other.address().port}`;
  const state = await fleet.dir();
  await serverFails(['--state', state, '--listen', address], new RegExp(address.replaceAll('.', '\\.')));
  await new Promise((resolve) => other.close(resolve));
  const server = await fleet.server({ state, listen: address }); // nothing was left behind
  await server.stop();
});

it('an address that is none', async () => {
  await serverFails(['--state', await fleet.dir(), '--listen', 'nonsense'], /nonsense/);
  await serverFails(['--state', await fleet.dir(), '--listen', '127.0.0.1:99999'], /99999/);
});

it('options that are none', async () => {
  await serverFails(['--colour', 'red'], /--colour/);
  await serverFails(['--state'], /state/);
  await serverFails(['--state', await fleet.dir(), '--store', 'paper', '--listen', '127.0.0.1:0'], /paper/);
});

it('a state folder that another server holds', async () => {
  await serverFails(['--state', s.state, '--listen', '127.0.0.1:0'], /in use|locked|another/);
  assert.equal((await call(admin, 'GET', '/healthz')).status, 200, 'the first one is not disturbed');
});

it('a state folder that is a file', async () => {
  const file = await fleet.file('state', 'x');
  await serverFails(['--state', file, '--listen', '127.0.0.1:0'], new RegExp(file));
});

// A command line that runs the binary with a file system of its own mounted on dir; undefined where this machine forbids it.
async function mounted(dir, options) {
  const privileged = process.getuid() === 0 ? ['-m'] : ['-rm'];
  const script = `mount -t tmpfs -o ${options} tmpfs "$0" && shift 0 && exec "$@"`;
  const probe = await run('unshare', [...privileged, 'sh', '-c', script, dir, 'true']);
  if (probe.code !== 0) return undefined;
  return (command, args) => ['unshare', [...privileged, 'sh', '-c', script, dir, command, ...args]];
}

it('a state folder that is read-only', async (t) => {
  const dir = await fleet.dir();
  const wrap = await mounted(dir, 'ro');
  if (!wrap) return t.skip('this machine allows no mounts');
  const [command, args] = wrap(ATOLL, ['server', '--state', path.join(dir, 'state'), '--listen', '127.0.0.1:0']);
  const r = await run(command, args, { timeoutMs: 20_000 });
  assert.ok(r.code > 0, `${r.code}\n${r.out}`);
  assert.match(r.err, /[Rr]ead-only/);
  assert.match(r.err, new RegExp(dir));
});

it('a disk that is full: writes are refused, reads go on, and room makes it whole again', async (t) => {
  const dir = await fleet.dir();
  const wrap = await mounted(dir, 'size=3m');
  if (!wrap) return t.skip('this machine allows no mounts');
  const [command, args] = wrap(ATOLL, ['server', '--state', dir, '--listen', '127.0.0.1:0']);
  const proc = fleet.start('atoll server (full)', args, { command });
  await proc.line(/^ready server (https:\/\/\S+)$/m);
  const inside = `/proc/${proc.pid}/root${dir}`;
  const full = await credentials(path.join(inside, 'admin.kubeconfig'));
  const maps = '/api/v1/namespaces/default/configmaps';
  const put = (name, bytes) => call(full, 'POST', maps, configMap(name, { a: 'x'.repeat(bytes) }));
  assert.equal((await put('small', 100)).status, 201);
  await writeFile(path.join(inside, 'filler'), Buffer.alloc(16 << 20)).catch((e) => assert.equal(e.code, 'ENOSPC'));
  let refused;
  const acknowledged = ['small'];
  for (let i = 0; i < 40 && !refused; i += 1) {
    const r = await put(`big${i}`, 60_000);
    if (r.status === 201) acknowledged.push(`big${i}`);
    else refused = r;
  }
  assert.ok(refused, 'a full disk was never noticed');
  assert.ok([500, 503, 507].includes(refused.status), JSON.stringify(refused.body));
  assert.match(refused.body.message, /full|space|disk/i);
  const names = async () => (await call(full, 'GET', maps)).body.items.map((o) => o.metadata.name).sort();
  assert.deepEqual(await names(), [...acknowledged].sort());
  // Until the smallest write is refused too: then the server is not ready, and says why.
  let tiny = refused;
  for (let i = 0; i < 60 && (i === 0 || tiny.status === 201); i += 1) {
    tiny = await put(`tiny${i}`, 10);
    if (tiny.status === 201) acknowledged.push(`tiny${i}`);
  }
  assert.notEqual(tiny.status, 201);
  const ready = await call(full, 'GET', '/readyz');
  assert.equal(ready.status, 503, String(ready.body));
  assert.match(ready.body, /store failed: .*(full|space|disk)/i);
  assert.equal((await call(full, 'GET', '/livez')).status, 200);
  await rm(path.join(inside, 'filler'));
  await eventually('it is ready again', async () => (await call(full, 'GET', '/readyz')).status === 200);
  await eventually('writes work again', async () => (await put('after', 100)).status === 201);
  assert.deepEqual(await names(), [...acknowledged, 'after'].sort());
});

const token = async (body) => {
  const r = await call(admin, 'POST', '/join/v1/tokens', body);
  assert.ok(r.status === 200 || r.status === 201, JSON.stringify(r.body));
  assert.match(r.body.caPin, /^sha256:[0-9a-f]{64}$/);
  return r.body.token;
};

const join = async (text, name) => {
  const { csr, key } = await certificateRequest(`system:node:${name}`);
  return { key, ...(await call(withoutCertificate(), 'POST', '/join/v1', { token: text, csr, name })) };
};

const unauthorized = (r, pattern) => {
  assert.equal(r.status, 401, JSON.stringify(r.body));
  assert.match(r.body.message, pattern);
  assert.equal(r.body.certificate, undefined);
};

it('join tokens: a good one works once', async () => {
  await s.apply(site('home'));
  const text = await token({ role: 'agent', site: 'home', ttl: '1h' });
  const first = await join(text, 'node-a');
  assert.equal(first.status, 200, JSON.stringify(first.body));
  assert.equal(first.body.site, 'home');
  const identity = { ...withoutCertificate(), cert: first.body.certificate, key: first.key };
  const who = await call(identity, 'POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' });
  assert.equal(who.body.status.userInfo.username, 'system:node:node-a');
  unauthorized(await join(text, 'node-b'), /used/);
});

it('join tokens: forged ones', async () => {
  const text = await token({ role: 'agent', site: 'home', ttl: '1h' });
  const [kind, id, secret] = text.split('.');
  const other = `${secret[0] === 'a' ? 'b' : 'a'}${secret.slice(1)}`;
  unauthorized(await join([kind, id, other].join('.'), 'node-f'), /token/);
  unauthorized(await join('nonsense', 'node-f'), /token/);
  unauthorized(await join('', 'node-f'), /token/);
  unauthorized(await join([kind, id.replace(/./g, '0'), secret].join('.'), 'node-f'), /token/);
  assert.equal((await join(text, 'node-f')).status, 200, 'a failed forgery does not use the token up');
});

it('join tokens: an expired one', async () => {
  const short = await token({ role: 'agent', site: 'home', ttl: '1ms' });
  unauthorized(await join(short, 'node-e'), /expired/);
});

it('join tokens: only administrators make them, and a bad request names its field', async () => {
  assert.equal((await call(withoutCertificate(), 'POST', '/join/v1/tokens', { role: 'agent', site: 'home' })).status, 401);
  for (const [body, pattern] of [
    [{ role: 'king', site: 'home' }, /role/],
    [{ role: 'agent', site: 'home', ttl: 'soon' }, /ttl/],
    [{ role: 'agent' }, /site/],
  ]) {
    const r = await call(admin, 'POST', '/join/v1/tokens', body);
    assert.ok(r.status === 400 || r.status === 422, JSON.stringify(r.body));
    assert.match(r.body.message, pattern);
  }
});

it('an agent reaches only what is its own', async () => {
  const joined = await join(await token({ role: 'agent', site: 'home', ttl: '1h' }), 'node-r');
  const me = { ...withoutCertificate(), cert: joined.body.certificate, key: joined.key };
  const node = (name) => ({ apiVersion: 'atoll.dev/v1', kind: 'Node', metadata: { name }, spec: { site: 'home' } });
  assert.equal((await call(me, 'POST', '/apis/atoll.dev/v1/nodes', node('node-r'))).status, 201);
  for (const [method, target, body] of [
    ['POST', '/apis/atoll.dev/v1/nodes', node('node-other')],
    ['GET', '/api/v1/secrets'],
    ['GET', '/apis/atoll.dev/v1/instances?watch=true'],
    ['GET', '/apis/atoll.dev/v1/instances?fieldSelector=spec.nodeName%3Dnode-other'],
    ['POST', '/apis/atoll.dev/v1/sites', site('mine')],
    ['DELETE', '/apis/atoll.dev/v1/sites/home'],
    ['POST', '/join/v1/tokens', { role: 'agent', site: 'home' }],
    ['POST', '/apis/atoll.dev/v1/nodes/node-other/heartbeat', {}],
  ]) {
    const r = await call(me, method, target, body);
    assert.equal(r.status, 403, `${method} ${target}: ${r.status} ${JSON.stringify(r.body)}`);
  }
  assert.equal((await call(me, 'GET', '/apis/atoll.dev/v1/instances?fieldSelector=spec.nodeName%3Dnode-r')).status, 200);
  assert.equal((await call(me, 'POST', '/apis/atoll.dev/v1/nodes/node-r/heartbeat', {})).status, 200);
});

it('an agent with a bad token or pin says so and ends', async () => {
  const pin = (await call(admin, 'POST', '/join/v1/tokens', { role: 'agent', site: 'home' })).body.caPin;
  const agentFails = async (args, pattern) => {
    const r = await run(ATOLL, ['agent', '--server', s.url, '--name', 'node-x', '--state', await fleet.dir(), ...args], { timeoutMs: 60_000 });
    assert.ok(r.code > 0, `${r.code} ${r.out}\n${r.err}`);
    assert.match(r.err, pattern);
  };
  await agentFails(['--token', 'agent.aaaaaaaa.bbbbbbbb', '--ca-pin', pin], /token/);
  await agentFails(['--token', 'agent.aaaaaaaa.bbbbbbbb', '--ca-pin', `sha256:${'0'.repeat(64)}`], /pin/);
  await agentFails([], /token/);
});
