// Who may come in, and for how long: access tokens, revoked certificates, names of nodes that are taken, and the end of what
// runs when a right goes. kubectl, openssl and plain HTTPS are the clients.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import path from 'node:path';
import tls from 'node:tls';
import { eventually, Fleet, KUBECTL, run, site } from './lib/atoll.mjs';
import { Cluster, web, webRoot } from './lib/cluster.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';
import { call, certificateRequest, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const RBAC = 'rbac.authorization.k8s.io';
const BASE = '/apis/atoll.dev/v1';
const CONFIGMAPS = '/api/v1/namespaces/default/configmaps';
let server;
let admin;
const bearer = (token) => ({ Authorization: `Bearer ${token}` });
const plain = () => ({ url: server.url, ca: admin.ca });
const ask = (token, target = CONFIGMAPS) => call(plain(), 'GET', target, undefined, bearer(token));
const make = (body, headers) => call(admin, 'POST', '/admin/v1/tokens', body, headers);
const revoke = (name, spec) => call(admin, 'POST', `${BASE}/certificaterevocations`, { apiVersion: 'atoll.dev/v1', kind: 'CertificateRevocation', metadata: { name }, spec });

// A client certificate that the server's own authority signs, as a join would.
async function certificate(subject, ...more) {
  const dir = await fleet.dir('entry');
  const at = (name) => path.join(dir, name);
  const pki = (name) => path.join(server.state, 'pki', name);
  const openssl = async (...args) => {
    const r = await run('openssl', args);
    assert.equal(r.code, 0, r.err);
    return r.out;
  };
  await openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at('key'), '-out', at('csr'), '-subj', subject);
  await openssl('x509', '-req', '-in', at('csr'), '-CA', pki('ca.crt'), '-CAkey', pki('ca.key'), '-CAcreateserial', '-CAserial', at('serial'), '-out', at('crt'), '-days', '1', ...more);
  const show = async (what) => (await openssl('x509', '-in', at('crt'), '-noout', ...what)).split('=')[1].trim();
  return {
    url: server.url,
    ca: admin.ca,
    cert: readFileSync(at('crt'), 'utf8'),
    key: readFileSync(at('key'), 'utf8'),
    serial: (await show(['-serial'])).replace(/^0+/, ''),
    fingerprint: (await show(['-fingerprint', '-sha256'])).replaceAll(':', ''),
  };
}

fleet.it('an access token is shown once, kept as a digest, used by kubectl, and ends when it is deleted or its time is over', async () => {
  server = await fleet.server();
  admin = await credentials(server.kubeconfig);
  await server.k('create clusterrolebinding readers --clusterrole=view --group=readers');
  const made = await make({ user: 'ada', groups: ['readers'], ttl: '1h', description: 'laptop' });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  const { token, name } = made.body;
  const secret = token.split('.')[2];
  assert.match(token, /^access\.[0-9a-f]{16}\.[0-9a-f]{64}$/);
  assert.equal((await ask(token)).status, 200);
  assert.equal((await ask(token, '/api/v1/namespaces/default/secrets')).status, 403);
  const who = await run(KUBECTL, ['--kubeconfig=/dev/null', `--server=${server.url}`, `--certificate-authority=${path.join(server.state, 'pki/ca.crt')}`, `--token=${token}`, 'auth', 'whoami', '-o', 'json']);
  assert.equal(who.code, 0, who.err);
  const info = JSON.parse(who.out).status.userInfo;
  assert.equal(info.username, 'ada');
  assert.ok(info.groups.includes('readers'));
  const review = await call(admin, 'POST', '/apis/authentication.k8s.io/v1/tokenreviews', { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } });
  assert.equal(review.body.status.user.username, 'ada');
  assert.match(await server.k('get accesstokens'), new RegExp(`${name}\\s+ada`));
  for (const file of readdirSync(server.state)) {
    if (/^(atoll\.db|audit)/.test(file)) assert.equal(readFileSync(path.join(server.state, file)).includes(secret), false, file);
  }
  // Wrong secrets, other sorts, cut ones.
  for (const bad of [token.slice(0, -1), token.replace(/.$/, (c) => (c === '0' ? '1' : '0')), token.replace('access', 'join'), `${token}0`, `access.${'0'.repeat(16)}.${secret}`]) {
    assert.equal((await ask(bad)).status, 401, bad);
  }
  // A watch that it opened ends with it, and it is refused at once.
  const watch = call(plain(), 'GET', `${CONFIGMAPS}?watch=true&timeoutSeconds=60`, undefined, bearer(token));
  await eventually('it watches', async () => /atoll_api_watches [1-9]/.test((await call(admin, 'GET', '/metrics')).body));
  await server.k(`delete accesstoken ${name}`);
  assert.equal((await ask(token)).status, 401);
  assert.match(JSON.stringify((await watch).body), /taken away/);
  const short = (await make({ user: 'ada', groups: ['readers'], ttl: '2s' })).body;
  assert.equal((await ask(short.token)).status, 200);
  const until = call(plain(), 'GET', `${CONFIGMAPS}?watch=true&timeoutSeconds=60`, undefined, bearer(short.token));
  await until;
  await eventually('it has ended', async () => (await ask(short.token)).status === 401);
});

// One connection: was a session resumed, who does the server think it is, and the newest session.
function connect({ cert, key }, session) {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host: '127.0.0.1', port: Number(new URL(server.url).port), ca: admin.ca, cert, key, session, servername: 'localhost', ALPNProtocols: ['http/1.1'] });
    const body = '{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}';
    let text = '';
    let newest;
    let reused;
    socket.on('session', (s) => { newest = s; });
    socket.on('secureConnect', () => { reused = socket.isSessionReused(); });
    socket.on('secureConnect', () => socket.write(`POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`));
    socket.on('data', (d) => { text += d; });
    socket.on('error', reject);
    socket.on('close', () => resolve({
      reused, session: newest, status: Number(text.split(' ')[1]),
      user: /"username":"([^"]*)"/.exec(text)?.[1], groups: /"groups":\[([^\]]*)\]/.exec(text)?.[1],
    }));
  });
}

fleet.it('a session goes on as who it was, from ticket to ticket, and not once the certificate is revoked', async () => {
  const who = await certificate('/O=system:masters/O=devs/CN=goes-on');
  const first = await connect(who);
  assert.deepEqual([first.reused, first.status, first.user], [false, 201, 'goes-on']);
  assert.match(first.groups, /system:masters.*devs/);
  let last = first;
  for (let i = 0; i < 3; i++) {
    last = await connect(who, last.session);
    assert.deepEqual([last.reused, last.status, last.user, last.groups], [true, 201, 'goes-on', first.groups], 'also groups that only our own authority gives');
  }
  // Another's session is of no use to who has not its secret; without a certificate there is one too.
  const anonymous = await connect({});
  assert.equal((await connect({}, anonymous.session)).reused, true);
  assert.equal((await connect({}, anonymous.session)).user, anonymous.user);
  await revoke('goes-on', { serial: who.serial });
  for (const { session } of [first, last]) {
    const after = await connect(who, session);
    assert.deepEqual([after.reused, after.status], [false, 401]);
  }
  await call(admin, 'DELETE', `${BASE}/certificaterevocations/goes-on`);
  const restarted = await connect(who);
  await server.restart();
  admin = await credentials(server.kubeconfig);
  const anew = await connect(who, restarted.session);
  assert.deepEqual([anew.reused, anew.status], [false, 201], 'no ticket outlives the server');
});

fleet.it('nobody makes a token for who he may not be, and none but the server writes one', async () => {
  const refused = async (body, status, why, headers) => {
    const r = await make(body, headers);
    assert.equal(r.status, status, JSON.stringify(r.body));
    assert.match(r.body.message, why);
  };
  await server.apply([
    { apiVersion: `${RBAC}/v1`, kind: 'ClusterRole', metadata: { name: 'token-maker' }, rules: [{ verbs: ['create'], nonResourceURLs: ['/admin/v1/tokens'] }, { verbs: ['create', 'update', 'patch', 'get'], apiGroups: ['atoll.dev'], resources: ['accesstokens'] }, { verbs: ['impersonate'], apiGroups: [''], resources: ['users'], resourceNames: ['bob'] }] },
    { apiVersion: `${RBAC}/v1`, kind: 'ClusterRoleBinding', metadata: { name: 'token-maker' }, roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: 'token-maker' }, subjects: [{ kind: 'User', name: 'mallory', apiGroup: RBAC }] },
  ]);
  const mallory = { 'Impersonate-User': 'mallory' };
  await refused({ user: 'admin' }, 403, /impersonate/, mallory);
  await refused({ user: 'bob', groups: ['system:masters'] }, 403, /impersonate/, mallory);
  await refused({ user: 'bob' }, 403, /cannot create path/, { 'Impersonate-User': 'eve' });
  const bob = await make({ user: 'bob' }, mallory);
  assert.equal(bob.status, 201);
  // By the object: neither made, nor given groups afterwards.
  const own = { apiVersion: 'atoll.dev/v1', kind: 'AccessToken', metadata: { name: 'mine' }, spec: { user: 'admin', groups: ['system:masters'], expires: '2099-01-01T00:00:00Z', secretSha256: 'a'.repeat(64) } };
  assert.equal((await call(admin, 'POST', `${BASE}/accesstokens`, own)).status, 403);
  const wider = await call(admin, 'PATCH', `${BASE}/accesstokens/${bob.body.name}`, { spec: { groups: ['system:masters'] } }, { 'Content-Type': 'application/merge-patch+json' });
  assert.equal(wider.status, 403);
  await server.kFails(['apply', '--server-side', '-f', '-'], /never changed/, { input: JSON.stringify(own) });
  for (const [body, why] of [[{}, /user/], [{ user: 'system:node:n1' }, /system:/], [{ user: 'a', ttl: '0s' }, /ttl/], [{ user: 'a', ttl: '9000h' }, /8760h/], [{ user: 'a', groups: 'x' }, /groups/], [{ user: 'a', groups: [''] }, /groups/], [{ user: 'a', groups: Array(16).fill('g') }, /groups/]]) {
    await refused(body, 400, why);
  }
});

fleet.it('a revoked certificate is refused for the next request on open connections too, by number, fingerprint or name', async () => {
  for (const how of ['serial', 'fingerprint', 'user']) {
    const user = `carl-${how}`;
    const carl = await certificate(`/O=atoll:viewers/CN=${user}`);
    const other = await certificate('/O=atoll:viewers/CN=dora');
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const onOne = (target) => call({ ...carl, agent }, 'GET', target);
    assert.equal((await onOne(CONFIGMAPS)).status, 200);
    const watch = call(carl, 'GET', `${CONFIGMAPS}?watch=true&timeoutSeconds=60`);
    await eventually('it watches', async () => /atoll_api_watches [1-9]/.test((await call(admin, 'GET', '/metrics')).body));
    const value = { serial: carl.serial.toLowerCase(), fingerprint: carl.fingerprint, user }[how];
    const made = await revoke(`r-${how}`, { [how]: value, reason: 'laptop lost' });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const now = await onOne(CONFIGMAPS);
    assert.equal(now.status, 401);
    assert.match(now.body.message, /certificate was revoked/);
    assert.match(JSON.stringify((await watch).body), /taken away/);
    assert.equal((await call(carl, 'GET', CONFIGMAPS)).status, 401, 'a new connection');
    assert.equal((await call(other, 'GET', CONFIGMAPS)).status, 200, 'another certificate');
    const log = readFileSync(path.join(server.state, 'audit.log'), 'utf8').split('\n').filter((line) => line.includes('was revoked'));
    assert.ok(log.some((line) => line.includes(user) && line.includes('unauthenticated')), 'it is recorded');
    await server.k(`delete certificaterevocation r-${how}`);
    assert.equal((await onOne(CONFIGMAPS)).status, 200, 'taken back');
    agent.destroy();
  }
  // Of a name, what was issued before: a certificate that comes later is good.
  const old = await certificate('/O=atoll:viewers/CN=erin');
  await revoke('erin', { user: 'erin', issuedBefore: new Date(Date.now() + 60_000).toISOString() });
  assert.equal((await call(old, 'GET', CONFIGMAPS)).status, 401);
  await server.k('delete certificaterevocation erin');
  await revoke('erin', { user: 'erin', issuedBefore: new Date(Date.now() - 60_000).toISOString() });
  assert.equal((await call(old, 'GET', CONFIGMAPS)).status, 200);
  for (const [spec, why] of [[{}, /exactly one/], [{ user: 'a', serial: '1' }, /exactly one/], [{ serial: '0x12' }, /serial/], [{ serial: '12', issuedBefore: '2026-01-01T00:00:00Z' }, /issuedBefore/]]) {
    const r = await revoke('bad', spec);
    assert.equal(r.status, 422, JSON.stringify(spec));
    assert.match(r.body.message, why);
  }
});

fleet.it('atoll token and atoll revoke do it all from the command line', async () => {
  const atoll = async (args, code = 0) => {
    const r = await server.atoll(args);
    assert.equal(r.code === 0, code === 0, `${args}\n${r.out}${r.err}`);
    return r.out + r.err;
  };
  const made = JSON.parse(await atoll('token create --user gus --group readers --ttl 1h --description ci -o json'));
  assert.equal((await ask(made.token)).status, 200);
  assert.match(await atoll('get accesstokens'), /gus/);
  assert.match(await atoll(['token', 'create', '--user', 'gus']), /It is not shown again/);
  await atoll(`token revoke ${made.name}`);
  assert.equal((await ask(made.token)).status, 401);
  await atoll('token revoke nothing', 1);
  assert.match(await atoll('token create', 1), /--user NAME/);
  const hal = await certificate('/O=atoll:viewers/CN=hal');
  assert.equal((await call(hal, 'GET', CONFIGMAPS)).status, 200);
  assert.match(await atoll('revoke user hal --reason left'), /refused from now on/);
  assert.equal((await call(hal, 'GET', CONFIGMAPS)).status, 401);
  await eventually('a new one is good', async () => (await call(await certificate('/O=atoll:viewers/CN=hal'), 'GET', CONFIGMAPS)).status === 200);
  assert.equal((await call(hal, 'GET', CONFIGMAPS)).status, 401, 'the old one is not');
  const ida = await certificate('/O=atoll:viewers/CN=ida');
  await atoll(`revoke serial 00${ida.serial.toLowerCase()}`);
  assert.equal((await call(ida, 'GET', CONFIGMAPS)).status, 401);
  await atoll('revoke node n9');
  assert.match(await atoll('get certificaterevocations'), /system:node:n9/);
  assert.match(await atoll('revoke everything now', 1), /give user, node/);
});

fleet.it('a certificate with two names is nobody', async () => {
  const two = await certificate('/O=system:masters/CN=admin/CN=eve');
  assert.equal((await call(two, 'GET', CONFIGMAPS)).status, 401);
});

fleet.it('a node name that is taken is joined again only by a token for that name, or after the Node was deleted', async () => {
  await server.apply(site('edge'));
  const { csr } = await certificateRequest('x');
  const token = async (body = {}) => (await call(admin, 'POST', '/join/v1/tokens', { role: 'agent', site: 'edge', ...body })).body.token;
  const join = async (name, body) => call(plain(), 'POST', '/join/v1', { token: await token(body), csr, name });
  assert.equal((await join('n1')).status, 200);
  const again = await join('n1');
  assert.equal(again.status, 409, 'before its Node is there');
  assert.match(again.body.message, /token create --node n1/);
  const both = await Promise.all([join('n2'), join('n2'), join('n2')]);
  assert.deepEqual(both.map((r) => r.status).sort(), [200, 409, 409]);
  assert.equal((await join('other', { node: 'n1' })).status, 403, 'a token for one name opens no other');
  assert.equal((await join('n1', { node: 'n1' })).status, 200);
  assert.equal((await call(admin, 'POST', `${BASE}/nodes`, { apiVersion: 'atoll.dev/v1', kind: 'Node', metadata: { name: 'n1' }, spec: { site: 'edge' } })).status, 201);
  assert.equal((await join('n1')).status, 409);
  assert.equal((await join('n1', { node: 'n1' })).status, 200);
  await server.k('delete node n1');
  assert.equal((await call(admin, 'POST', `${BASE}/nodes`, { apiVersion: 'atoll.dev/v1', kind: 'Node', metadata: { name: 'n1' }, spec: { site: 'edge' } })).status, 201);
  await server.k('delete node n1');
  assert.equal((await join('n1')).status, 200);
  assert.equal((await call(admin, 'POST', '/join/v1/tokens', { role: 'gateway', node: 'n1' })).status, 400);
});

fleet.it('a revocation and the end of a token hold at every server of one etcd', async () => {
  const etcd = await Etcd.start(fleet);
  const args = ['--store', `etcd:${etcd.url}`, '--pki', path.join(await fleet.dir('atoll-pki'), 'pki')];
  const one = await fleet.server({ args });
  const two = await fleet.server({ args });
  server = one;
  admin = await credentials(one.kubeconfig);
  const pki = args.at(-1);
  const dir = await fleet.dir('entry');
  const at = (name) => path.join(dir, name);
  await run('openssl', ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at('key'), '-out', at('csr'), '-subj', '/O=atoll:viewers/CN=jo']);
  await run('openssl', ['x509', '-req', '-in', at('csr'), '-CA', path.join(pki, 'ca.crt'), '-CAkey', path.join(pki, 'ca.key'), '-CAcreateserial', '-CAserial', at('serial'), '-out', at('crt'), '-days', '1']);
  const jo = { url: two.url, ca: admin.ca, cert: readFileSync(at('crt'), 'utf8'), key: readFileSync(at('key'), 'utf8') };
  const { token, name } = (await make({ user: 'jo', groups: ['atoll:viewers'] })).body;
  const byToken = () => call({ url: two.url, ca: admin.ca }, 'GET', CONFIGMAPS, undefined, bearer(token));
  await eventually('the token is known there', async () => (await byToken()).status === 200);
  assert.equal((await call(jo, 'GET', CONFIGMAPS)).status, 200);
  const watch = call(jo, 'GET', `${CONFIGMAPS}?watch=true&timeoutSeconds=60`);
  await eventually('it watches', async () => /atoll_api_watches [1-9]/.test((await call({ ...admin, url: two.url }, 'GET', '/metrics')).body));
  assert.equal((await revoke('jo', { user: 'jo' })).status, 201);
  await one.k(`delete accesstoken ${name}`);
  assert.match(JSON.stringify((await watch).body), /taken away/);
  await eventually('refused there', async () => (await call(jo, 'GET', CONFIGMAPS)).status === 401 && (await byToken()).status === 401, { timeoutMs: 3000 });
  await two.restart();
  assert.equal((await call({ ...jo, url: two.url }, 'GET', CONFIGMAPS)).status, 401, 'after a restart too');
}, { skip: ETCD_MISSING });

fleet.it('commands, logs and ports that run end when the right to them is taken away; an agent whose certificate is revoked loses its node', async () => {
  const cluster = await Cluster.start(fleet, { n1: 'here' });
  server = cluster.server;
  admin = cluster.admin;
  const deployment = web('w', cluster, { replicas: 1, root: await webRoot(fleet, 'x') });
  await server.apply(deployment);
  await cluster.ready('w');
  const [instance] = await cluster.instances('w');
  const name = instance.metadata.name;
  await server.k('create rolebinding ed --clusterrole=edit --user=ed');
  const start = (what, args) => fleet.start(what, ['--kubeconfig', server.kubeconfig, '--as', 'ed', ...args], { command: KUBECTL });
  const command = start('exec', ['exec', name, '--', 'sh', '-c', 'echo begun; exec sleep 300']);
  const port = start('forward', ['port-forward', `pod/${name}`, ':1']);
  await command.line(/^begun$/m);
  await port.line(/Forwarding from/m);
  const log = call(cluster.url, 'GET', `${BASE}/namespaces/default/instances/${name}/log?follow=true`, undefined, { 'Impersonate-User': 'ed' }).then((r) => `ended ${r.status}`, (e) => `cut ${e.message}`);
  await eventually('all run', async () => /atoll_api_sessions [2-9]/.test((await call(cluster.url, 'GET', '/metrics')).body));
  await server.k('delete rolebinding ed');
  const status = await command.exited;
  assert.notEqual(status.code, 0);
  assert.match(command.log(), /taken away/);
  await log;
  await eventually('nothing runs any more', async () => /atoll_api_sessions 0/.test((await call(cluster.url, 'GET', '/metrics')).body));
  await port.kill('SIGKILL');
  // The machine is stolen: its certificates are revoked.
  await revoke('n1', { user: 'system:node:n1', issuedBefore: new Date().toISOString() });
  await eventually('its node is lost', async () => (await cluster.list('nodes'))[0].status.conditions.find((c) => c.type === 'Ready').status === 'False');
  await cluster.killAgent('n1');
});
