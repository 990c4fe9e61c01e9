// The server's certificate and whose certificates it takes: renewed while it runs, the user's own by files, another authority's
// clients with a revocation list, and the user's own authority instead of ours. openssl makes and curl and kubectl use them.
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { chmod, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { Agent } from 'node:https';
import path from 'node:path';
import { connect } from 'node:tls';
import { ATOLL, eventually, Fleet, run, site } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
const openssl = async (...args) => {
  const r = await run('openssl', args);
  assert.equal(r.code, 0, `openssl ${args.join(' ')}\n${r.err}`);
  return r.out;
};
const NAMESPACES = '/api/v1/namespaces';

// The certificate that a server shows now.
const shown = (url, ca) =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const socket = connect({ host: hostname, port, ca }, () => {
      resolve(socket.getPeerCertificate());
      socket.destroy();
    });
    socket.on('error', reject);
  });

// An authority of its own, in a folder.
async function authority(name, newkey = EC) {
  const dir = await fleet.dir('authority');
  const at = (file) => path.join(dir, file);
  await openssl('req', '-x509', ...newkey, '-keyout', at('ca.key'), '-out', at('ca.crt'), '-subj', `/CN=${name}`, '-days', '2');
  await writeFile(at('index.txt'), '');
  await writeFile(at('number'), '01\n');
  await writeFile(at('ca.cnf'), `[ca]\ndefault_ca=d\n[d]\ndatabase=${at('index.txt')}\ncrlnumber=${at('number')}\ndefault_md=sha256\ndefault_crl_days=1\n`);
  const sign = async (file, subject, ext, days = '1') => {
    await openssl('req', ...EC, '-keyout', at(`${file}.key`), '-out', at('csr'), '-subj', subject);
    await writeFile(at('ext'), ext);
    await openssl('x509', '-req', '-in', at('csr'), '-CA', at('ca.crt'), '-CAkey', at('ca.key'), '-CAcreateserial', '-out', at(`${file}.crt`), '-days', days, '-extfile', at('ext'));
  };
  const client = async (file, subject) => {
    await sign(file, subject, 'extendedKeyUsage=clientAuth\n');
    return { cert: readFileSync(at(`${file}.crt`), 'utf8'), key: readFileSync(at(`${file}.key`), 'utf8') };
  };
  const revoke = (file) => openssl('ca', '-config', at('ca.cnf'), '-keyfile', at('ca.key'), '-cert', at('ca.crt'), '-revoke', at(`${file}.crt`));
  const list = (out) => openssl('ca', '-gencrl', '-config', at('ca.cnf'), '-keyfile', at('ca.key'), '-cert', at('ca.crt'), '-out', at(out));
  return { at, sign, client, revoke, list, pem: readFileSync(at('ca.crt'), 'utf8') };
}
const SERVER = 'extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n';

fleet.it("the server's own certificate is renewed before it ends, while connections and clients go on", async () => {
  const server = await fleet.server({ args: ['--tls-lifetime', '9s'] });
  const admin = await credentials(server.kubeconfig);
  const first = await shown(server.url, admin.ca);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  assert.equal((await call({ ...admin, agent }, 'GET', NAMESPACES)).status, 200);
  const second = await eventually('another certificate', async () => {
    const now = await shown(server.url, admin.ca);
    return now.serialNumber !== first.serialNumber && now;
  });
  assert.ok(Date.now() < Date.parse(first.valid_to), 'before the first one ended');
  assert.ok(Date.parse(second.valid_to) > Date.parse(first.valid_to));
  assert.equal((await call({ ...admin, agent }, 'GET', NAMESPACES)).status, 200, 'on the connection that was open');
  await server.k('get namespaces');
  assert.match((await call(admin, 'GET', '/metrics')).body, /atoll_server_tls_reloads_total\{result="ok"\} [1-9]/);
  agent.destroy();
});

fleet.it("a certificate of the user's is shown, read again when it changes, and agents that join are told of its authority", async () => {
  const ca = await authority('corporate');
  await ca.sign('server', '/CN=atoll.example', SERVER);
  const args = ['--tls-cert', ca.at('server.crt'), '--tls-key', ca.at('server.key'), '--tls-ca', ca.at('ca.crt')];
  const server = await fleet.server({ args });
  const admin = await credentials(server.kubeconfig);
  assert.equal((await shown(server.url, ca.pem)).subject.CN, 'atoll.example');
  const curl = await run('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_code}', '--cacert', ca.at('ca.crt'), `${server.url}/healthz`]);
  assert.equal(curl.out, '200', curl.err);
  await server.apply(site('edge'));
  const join = async (name) => {
    const { token, caPin } = (await call(admin, 'POST', '/join/v1/tokens', { role: 'agent', site: 'edge' })).body;
    const state = await fleet.dir('atoll-agent');
    const proc = fleet.start(`agent ${name}`, ['agent', '--server', server.url, '--token', token, '--ca-pin', caPin, '--name', name, '--state', state]);
    await proc.line(/^ready agent /m);
    return proc;
  };
  await join('n1');
  // A key that does not fit stays out; then a whole pair comes in.
  const before = (await shown(server.url, ca.pem)).serialNumber;
  await ca.sign('next', '/CN=atoll.example', SERVER);
  await rename(ca.at('next.key'), ca.at('server.key'));
  await eventually('it says so', async () => /tls\.reload_failed/.test(server.proc.err));
  assert.equal((await shown(server.url, ca.pem)).serialNumber, before);
  await rename(ca.at('next.crt'), ca.at('server.crt'));
  await eventually('the new one', async () => (await shown(server.url, ca.pem)).serialNumber !== before);
  await join('n2');
  await server.k('get nodes');
  for (const [bad, why] of [[['--tls-cert', ca.at('server.crt')], /go together/], [['--tls-cert', ca.at('server.crt'), '--tls-key', ca.at('ca.key'), '--tls-ca', ca.at('ca.crt')], /server\.crt: the certificate and its key/], [['--tls-cert', ca.at('server.crt'), '--tls-key', ca.at('server.key'), '--tls-ca', path.join(server.state, 'pki/ca.crt')], /does not vouch/], [['--client-crl', ca.at('ca.crt')], /needs --client-ca/], [['--client-ca', ca.at('nothing')], /nothing/]]) {
    const r = await run(server.proc.child.spawnfile, ['server', '--state', await fleet.dir('atoll-bad'), '--listen', '127.0.0.1:0', ...bad]);
    assert.notEqual(r.code, 0);
    assert.match(r.err, why);
  }
});

fleet.it('clients of another authority come in by their names but never by ours, and its revocation list ends them while they are connected', async () => {
  const ca = await authority('people');
  await ca.list('crl.pem');
  const server = await fleet.server({ args: ['--client-ca', ca.at('ca.crt'), '--client-crl', ca.at('crl.pem')] });
  const admin = await credentials(server.kubeconfig);
  const at = { url: server.url, ca: admin.ca };
  await server.k('create clusterrolebinding alice --clusterrole=view --user=alice');
  await server.k('create clusterrolebinding staff --clusterrole=view --group=staff');
  const alice = { ...at, ...(await ca.client('alice', '/O=staff/CN=alice')) };
  const bob = { ...at, ...(await ca.client('bob', '/O=staff/O=system:masters/O=atoll:editors/CN=bob')) };
  const node = { ...at, ...(await ca.client('node', '/O=system:nodes/CN=system:node:n1')) };
  const stranger = { ...at, ...(await (await authority('people')).client('x', '/O=staff/CN=alice')) };
  const configmaps = '/api/v1/namespaces/default/configmaps';
  assert.equal((await call(alice, 'GET', configmaps)).status, 200);
  assert.equal((await call(bob, 'GET', configmaps)).status, 200, 'by his own group');
  assert.equal((await call(bob, 'GET', '/api/v1/namespaces/default/secrets')).status, 403, 'not by one of ours');
  assert.equal((await call(bob, 'POST', configmaps, { metadata: { name: 'x' } })).status, 403);
  const refused = await call(node, 'GET', '/apis/atoll.dev/v1/nodes/n1');
  assert.equal(refused.status, 401);
  assert.match(refused.body.message, /own authority alone/);
  await assert.rejects(call(stranger, 'GET', configmaps), /alert|ECONNRESET|socket/i, 'the same names by another key');
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  assert.equal((await call({ ...alice, agent }, 'GET', configmaps)).status, 200);
  const watch = call(alice, 'GET', `${configmaps}?watch=true&timeoutSeconds=60`);
  await eventually('it watches', async () => /atoll_api_watches [1-9]/.test((await call(admin, 'GET', '/metrics')).body));
  await ca.revoke('alice');
  await ca.list('next.pem');
  await rename(ca.at('next.pem'), ca.at('crl.pem'));
  assert.match(JSON.stringify((await watch).body), /taken away/);
  assert.equal((await call({ ...alice, agent }, 'GET', configmaps)).status, 401, 'on the open connection');
  assert.equal((await call(bob, 'GET', configmaps)).status, 200);
  // A list that nobody signed changes nothing.
  await writeFile(ca.at('next.pem'), '');
  await rename(ca.at('next.pem'), ca.at('crl.pem'));
  await eventually('it says so', async () => /tls\.reload_failed/.test(server.proc.err));
  assert.equal((await call(alice, 'GET', configmaps)).status, 401);
  agent.destroy();
});

for (const [what, newkey] of [['RSA', ['-newkey', 'rsa:2048', '-nodes']], ['Ed25519', ['-newkey', 'ed25519', '-nodes']]]) {
  fleet.it(`the user's own authority with a key of ${what} signs for the server, agents and administrators`, async () => {
    const pki = await fleet.dir('pki');
    await openssl('req', '-x509', ...newkey, '-keyout', path.join(pki, 'ca.key'), '-out', path.join(pki, 'ca.crt'), '-subj', '/CN=corporate', '-days', '2', '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
    const server = await fleet.server({ args: ['--pki', pki] });
    await server.k('get namespaces');
    await server.k('create serviceaccount robot');
    assert.match(await server.k('create token robot'), /^ey/);
    assert.match(await openssl('x509', '-in', path.join(pki, 'ca.crt'), '-noout', '-subject'), /corporate/);
  });
}

fleet.it('the authority\'s key that is lost, damaged or open to others stops the server; a lost certificate is made again for the same key', async () => {
  const server = await fleet.server();
  await server.k('create configmap before');
  const admin = await readFile(server.kubeconfig);
  await server.stop();
  const [key, crt, audit] = ['pki/ca.key', 'pki/ca.crt', 'audit.key'].map((name) => path.join(server.state, name));
  const good = await readFile(key);
  const refuses = async (pattern) => {
    const r = await run(ATOLL, ['server', '--state', server.state, '--listen', '127.0.0.1:0']);
    assert.notEqual(r.code, 0);
    assert.match(r.err, pattern);
    assert.doesNotMatch(r.err, /PRIVATE KEY/);
  };
  await rm(key);
  await refuses(/the authority's key is needed beside its certificate: put it back/);
  for (const text of ['', good.subarray(0, 60), generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' })]) {
    await writeFile(key, text, { mode: 0o600 });
    await refuses(/ca\.key (holds no private key|is not the key of)/);
  }
  await writeFile(key, good);
  for (const file of [key, audit]) {
    await chmod(file, 0o644);
    await refuses(/open to others than its owner.*chmod 600/);
    await chmod(file, 0o600);
  }
  await rm(crt);
  await server.start();
  assert.deepEqual(await readFile(key), good, 'a key is never written over');
  await writeFile(server.kubeconfig, admin);
  assert.match(await server.k('get configmap before -o name'), /before/, 'who trusted it before trusts it still');
});
