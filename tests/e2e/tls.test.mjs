// TLS as openssl and curl see it: 1.3 and nothing else, certificates of this authority and no other, names that are right.
import assert from 'node:assert/strict';
import path from 'node:path';
import { Fleet, run } from './lib/atoll.mjs';
import { credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const openssl = async (...args) => {
  const r = await run('openssl', args);
  assert.equal(r.code, 0, `openssl ${args.join(' ')}\n${r.err}`);
  return r;
};
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

fleet.it('the server speaks TLS 1.3 only, and openssl and curl verify it by its authority and name', async () => {
  const server = await fleet.server();
  const { hostname, port } = new URL(server.url);
  const ca = path.join(server.state, 'pki/ca.crt');
  const connect = (...args) => run('openssl', ['s_client', '-connect', `${hostname}:${port}`, '-CAfile', ca, '-verify_return_error', ...args], { input: '' });
  assert.match((await connect('-tls1_3')).out, /Protocol\s*: TLSv1\.3|New, TLSv1\.3/);
  for (const old of ['-tls1', '-tls1_1', '-tls1_2']) {
    const r = await connect(old, '-cipher', 'DEFAULT@SECLEVEL=0');
    assert.match(r.out + r.err, /protocol version|no protocols available|alert/i, old);
    assert.doesNotMatch(r.out, /Verify return code: 0 \(ok\)[\s\S]*Session-ID: [0-9A-F]{8}/, old);
  }
  const curl = (...args) => run('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_code}', ...args]);
  assert.equal((await curl('--cacert', ca, `${server.url}/healthz`)).out, '200');
  assert.notEqual((await curl(`${server.url}/healthz`)).code, 0, 'an authority that nobody was told of');
  const foreign = await curl('--cacert', ca, '--resolve', `other.example:${port}:${hostname}`, `https://other.example:${port}/healthz`);
  assert.match(foreign.err, /no alternative certificate subject name|subject name/);
});

fleet.it('a client certificate counts when this authority signed it, for clients, and it has not expired', async () => {
  const server = await fleet.server();
  const admin = await credentials(server.kubeconfig);
  assert.ok(admin.cert);
  const dir = await fleet.dir('tls');
  const at = (name) => path.join(dir, name);
  const pki = (name) => path.join(server.state, 'pki', name);
  const ask = async (cert, key) => {
    const r = await run('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_code}', '--cacert', pki('ca.crt'), '--cert', at(cert), '--key', at(key), `${server.url}/api/v1/namespaces`]);
    return r.code === 0 ? r.out : `refused ${r.err}`;
  };
  const SUBJECT = '/O=system:masters/CN=admin';
  await openssl('req', '-x509', ...EC, '-keyout', at('other-ca.key'), '-out', at('other-ca.crt'), '-subj', '/CN=atoll-ca', '-days', '2');
  await openssl('req', ...EC, '-keyout', at('key'), '-out', at('csr'), '-subj', SUBJECT);
  const signed = (out, ca, key, ...more) => openssl('x509', '-req', '-in', at('csr'), '-CA', ca, '-CAkey', key, '-CAcreateserial', '-CAserial', at('serial'), '-out', at(out), ...more);
  await signed('good.crt', pki('ca.crt'), pki('ca.key'), '-days', '1');
  await signed('foreign.crt', at('other-ca.crt'), at('other-ca.key'), '-days', '1');
  await signed('expired.crt', pki('ca.crt'), pki('ca.key'), '-days', '-1');
  assert.equal(await ask('good.crt', 'key'), '200');
  assert.match(await ask('foreign.crt', 'key'), /^refused|^401/);
  assert.match(await ask('expired.crt', 'key'), /^refused|^401/);
  await openssl('req', '-x509', ...EC, '-keyout', at('own.key'), '-out', at('own.crt'), '-subj', SUBJECT, '-days', '1');
  assert.match(await ask('own.crt', 'own.key'), /^refused|^401/);
});
