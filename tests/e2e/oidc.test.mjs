// People with tokens of an OpenID provider: oidc-provider issues for real; a provider of our own issues what is wrong.
import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import path from 'node:path';
import { after } from 'node:test';
import Provider from 'oidc-provider';
import { Fleet, eventually, run } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const servers = [];
after(() => servers.forEach((s) => { s.closeAllConnections(); s.close(); }));
const AUDIENCE = 'https://atoll.example';
const MAPS = '/api/v1/namespaces/default/configmaps';
const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

// An authority and a certificate of its own for 127.0.0.1, by openssl.
async function authority() {
  const dir = await fleet.dir('oidc');
  const ok = async (...args) => {
    const r = await run('openssl', args);
    assert.equal(r.code, 0, r.err);
  };
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const at = (name) => path.join(dir, name);
  await ok('req', '-x509', ...ec, '-keyout', at('ca.key'), '-out', at('ca.crt'), '-subj', '/CN=provider-ca', '-days', '2');
  await ok('req', ...ec, '-keyout', at('key'), '-out', at('csr'), '-subj', '/CN=provider');
  writeFileSync(at('ext'), 'subjectAltName=IP:127.0.0.1');
  await ok('x509', '-req', '-in', at('csr'), '-CA', at('ca.crt'), '-CAkey', at('ca.key'), '-CAcreateserial', '-out', at('crt'), '-days', '1', '-extfile', at('ext'));
  return { ca: at('ca.crt'), cert: readFileSync(at('crt')), key: readFileSync(at('key')) };
}

const listening = (server) => new Promise((resolve) => {
  servers.push(server);
  server.listen(0, '127.0.0.1', () => resolve(`https://127.0.0.1:${server.address().port}`));
});

const options = (issuer, ca, ...more) => ['--oidc-issuer-url', issuer, '--oidc-client-id', AUDIENCE, '--oidc-ca-file', ca, ...more];

fleet.it('a token that oidc-provider issued is taken, by kubectl --token and by an exec plug-in', async () => {
  const tls = await authority();
  const server0 = createServer(tls);
  const issuer = await listening(server0);
  const provider = new Provider(issuer, {
    clients: [{ client_id: 'robot', client_secret: 'robot-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] }],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        getResourceServerInfo: () => ({ scope: 'api', audience: AUDIENCE, accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'RS256' } } }),
      },
    },
    extraTokenClaims: () => ({ groups: ['devs'] }),
  });
  server0.on('request', provider.callback());
  const server = await fleet.server({ args: options(issuer, tls.ca, '--oidc-groups-claim', 'groups', '--oidc-groups-prefix', 'oidc:') });
  const r = await run('curl', ['-s', '--cacert', tls.ca, '-u', 'robot:robot-secret', '-d', `grant_type=client_credentials&resource=${AUDIENCE}&scope=api`, `${issuer}/token`]);
  const token = JSON.parse(r.out).access_token;
  assert.equal(token.split('.').length, 3, r.out);
  await server.k('create clusterrolebinding devs --clusterrole=view --group=oidc:devs');
  const admin = await credentials(server.kubeconfig);
  const kubeconfig = await fleet.file('config', JSON.stringify({
    apiVersion: 'v1', kind: 'Config', 'current-context': 'x',
    clusters: [{ name: 'c', cluster: { server: server.url, 'certificate-authority-data': Buffer.from(admin.ca).toString('base64') } }],
    users: [
      { name: 'token', user: { token } },
      { name: 'exec', user: { exec: { apiVersion: 'client.authentication.k8s.io/v1', interactiveMode: 'Never', command: 'sh', args: ['-c', `printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}' "$TOKEN"`], env: [{ name: 'TOKEN', value: token }] } } },
    ],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'token' } }, { name: 'y', context: { cluster: 'c', user: 'exec' } }],
  }));
  for (const context of ['x', 'y']) {
    const who = await server.k(['auth', 'whoami', '-o', 'json', '--context', context], { env: { KUBECONFIG: kubeconfig } });
    assert.deepEqual(JSON.parse(who).status.userInfo, { username: `${issuer}#robot`, groups: ['oidc:devs', 'system:authenticated'] });
    await server.k(['get', 'configmaps', '--context', context], { env: { KUBECONFIG: kubeconfig } });
    await server.kFails(['get', 'secrets', '--context', context], /cannot list resource "secrets"/, { env: { KUBECONFIG: kubeconfig } });
  }
  const review = await call(admin, 'POST', '/apis/authentication.k8s.io/v1/tokenreviews', { spec: { token } });
  assert.equal(review.body.status.user.username, `${issuer}#robot`);
  await server.stop();
  const log = readFileSync(path.join(server.state, 'audit.log'), 'utf8');
  assert.match(log, /"auth":"oidc"/);
  assert.ok(!log.includes(token.split('.')[2]));
});

fleet.it('forged, foreign, early, late and misdirected tokens are refused; keys are rotated without a restart', async () => {
  const tls = await authority();
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 });
  const jwk = (pair, kid, more = {}) => ({ ...pair.publicKey.export({ format: 'jwk' }), kid, use: 'sig', ...more });
  let keys = [jwk(rsa, 'r'), jwk(ec, 'e'), jwk(weak, 'w'), { kty: 'oct', k: b64('secret'), kid: 'o' }];
  let issuer;
  let asked = 0;
  issuer = await listening(createServer(tls, (req, res) => {
    const found = { '/.well-known/openid-configuration': { issuer, jwks_uri: `${issuer}/keys` }, '/keys': { keys } }[req.url];
    asked += req.url === '/keys';
    res.writeHead(found ? 200 : 404, { 'Content-Type': 'application/json' }).end(JSON.stringify(found ?? {}));
  }));
  const server = await fleet.server({ args: options(issuer, tls.ca, '--oidc-username-claim', 'email', '--oidc-groups-claim', 'groups') });
  const admin = await credentials(server.kubeconfig);
  const now = Math.floor(Date.now() / 1000);
  const good = { iss: issuer, aud: ['x', AUDIENCE], sub: 's', email: 'ann@example.org', groups: ['atoll:viewers', 'system:masters'], iat: now, exp: now + 300 };
  const make = (head, claims, pair) => {
    const text = `${b64(head)}.${b64(claims)}`;
    return `${text}.${sign('sha256', Buffer.from(text), { key: pair.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };
  const ask = async (token) => (await call({ url: server.url, ca: admin.ca }, 'GET', MAPS, undefined, { Authorization: `Bearer ${token}` })).status;
  // 429 comes from too many failures of one address: then this test is too fast, not wrong.
  const es = (claims = {}, head = {}) => make({ alg: 'ES256', kid: 'e', ...head }, { ...good, ...claims }, ec);
  assert.equal(await ask(es()), 200);
  assert.equal(await ask(make({ alg: 'RS256', kid: 'r' }, good, rsa)), 200);
  assert.equal(await ask(es({}, { kid: undefined })), 200);
  const masters = await call({ url: server.url, ca: admin.ca }, 'GET', '/api/v1/namespaces/default/secrets', undefined, { Authorization: `Bearer ${es()}` });
  assert.equal(masters.status, 403, 'a provider gives nobody a group of the system');
  const pem = rsa.publicKey.export({ type: 'spki', format: 'pem' });
  const hmac = (head) => {
    const text = `${b64(head)}.${b64(good)}`;
    return `${text}.${createHmac('sha256', pem).update(text).digest('base64url')}`;
  };
  const wrong = {
    'alg none': `${b64({ alg: 'none' })}.${b64(good)}.`,
    'alg none with the name of a key': `${b64({ alg: 'none', kid: 'e' })}.${b64(good)}.AAAA`,
    'the public key as the secret of an HMAC': hmac({ alg: 'HS256', kid: 'r' }),
    'an HMAC that says RS256': hmac({ alg: 'RS256', kid: 'r' }),
    'RS256 by the name of an EC key': make({ alg: 'RS256', kid: 'e' }, good, rsa),
    'another key of the same name': make({ alg: 'ES256', kid: 'e' }, good, other),
    'a key in its own head': make({ alg: 'ES256', jwk: jwk(other, 'e') }, good, other),
    'a weak key': make({ alg: 'RS256', kid: 'w' }, good, weak),
    'a changed claim': es().replace(/\.[^.]+\./, `.${b64({ ...good, email: 'root@example.org' })}.`),
    'wrong audience': es({ aud: 'https://other.example' }),
    'no audience': es({ aud: undefined }),
    'wrong issuer': es({ iss: 'https://127.0.0.1:1' }),
    expired: es({ exp: now - 61 }),
    'a clock an hour behind': es({ iat: now + 3600, exp: now + 7200 }),
    'a clock an hour ahead': es({ iat: now - 7200, exp: now - 3600 }),
    'not yet valid': es({ nbf: now + 120 }),
    'no expiry': es({ exp: undefined }),
    'expiry as text': es({ exp: String(now + 300) }),
    'no name': es({ email: undefined }),
    'an unverified email': es({ email_verified: false }),
    'a name of the system': es({ email: 'system:admin' }),
    'crit': es({}, { crit: ['x'], x: 1 }),
    'a claim named twice': (() => { const text = `${b64({ alg: 'ES256', kid: 'e' })}.${b64(JSON.stringify(good).replace('{', '{"email":"root@example.org",'))}`; return `${text}.${sign('sha256', Buffer.from(text), { key: ec.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`; })(),
  };
  const review = (token) => call(admin, 'POST', '/apis/authentication.k8s.io/v1/tokenreviews', { spec: { token } });
  for (const [what, token] of Object.entries(wrong)) assert.notEqual((await review(token)).body.status.authenticated, true, what);
  for (const what of ['alg none', 'the public key as the secret of an HMAC', 'wrong audience', 'expired', 'a claim named twice']) assert.equal(await ask(wrong[what]), 401, what);
  // A new key is fetched when a token names it, once; made-up names do not make the server ask again.
  const next = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const before = asked;
  keys = [jwk(next, 'n')];
  await eventually('the new key is known', async () => (await review(make({ alg: 'ES256', kid: 'n' }, good, next))).body.status.authenticated || (await ask(make({ alg: 'ES256', kid: 'n' }, good, next))) === 200, { everyMs: 600 });
  assert.equal(await ask(es()), 401, 'the old key is none any more');
  assert.equal(asked, before + 1);
  await server.stop();
  const log = readFileSync(path.join(server.state, 'audit.log'), 'utf8');
  assert.match(log, /"decision":"unauthenticated","reason":"it is meant for another audience"/);
});

fleet.it('guessing tokens is slowed and recorded, and others go on', async () => {
  const server = await fleet.server();
  const admin = await credentials(server.kubeconfig);
  const guess = (i) => call({ url: server.url, ca: admin.ca }, 'GET', MAPS, undefined, { Authorization: `Bearer guess-number-${i}` });
  const statuses = [];
  for (let i = 0; i < 14; i++) statuses.push((await guess(i)).status);
  assert.deepEqual(statuses.slice(0, 10), Array(10).fill(401));
  assert.ok(statuses.slice(10).includes(429), statuses.join());
  const slowed = await guess(99);
  if (slowed.status === 429) assert.match(JSON.stringify(slowed.body), /too many tokens that are none/);
  assert.equal((await call(admin, 'GET', MAPS)).status, 200, 'a certificate is no guess');
  const join = await call({ url: server.url, ca: admin.ca }, 'POST', '/join/v1', { token: 'join.0.0', csr: 'x', name: 'n' });
  assert.ok([401, 429].includes(join.status));
  await server.stop();
  const lines = readFileSync(path.join(server.state, 'audit.log'), 'utf8').split('\n').filter((l) => l.includes('"from"')).map((l) => JSON.parse(l));
  assert.ok(lines.filter((l) => l.code === 401).length >= 10);
  assert.ok(lines.some((l) => l.code === 429 && /too many tokens/.test(l.reason)));
});
