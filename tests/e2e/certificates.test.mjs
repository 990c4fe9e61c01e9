// The certificate that a gateway shows is read again while it runs: what is open goes on, what is new sees the new one, and
// a broken file changes nothing.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { cp, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import tls from 'node:tls';
import { eventually, Fleet, run } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);

async function certificate(dir, name) {
  const made = await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${dir}/${name}.key`, '-out', `${dir}/${name}.pem`, '-days', '2', '-subj', `/CN=${name}`]);
  assert.equal(made.code, 0, made.err);
}

async function gateway(...more) {
  const dir = await fleet.dir('certs');
  for (const name of ['first', 'second', 'third']) await certificate(dir, name);
  await cp(`${dir}/first.pem`, `${dir}/tls.pem`);
  await cp(`${dir}/first.key`, `${dir}/tls.key`);
  const back = http.createServer((req, res) => res.end('{}')).listen(0, '127.0.0.1');
  await once(back, 'listening');
  back.unref();
  const routes = await fleet.file('routes.json', JSON.stringify({ models: { m: [{ endpoint: `127.0.0.1:${back.address().port}` }] } }));
  const proc = fleet.start('atoll gateway', ['gateway', '--listen', '127.0.0.1:0', '--static-routes', routes, '--threads', '2', '--tls-cert', `${dir}/tls.pem`, '--tls-key', `${dir}/tls.key`, ...more]);
  const [, url] = await proc.line(/^ready gateway (https:\/\/\S+)$/m);
  return { dir, proc, url, port: Number(new URL(url).port), back };
}

async function shown(port) {
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const name = socket.getPeerCertificate().subject.CN;
  assert.equal(socket.getProtocol(), 'TLSv1.3');
  socket.destroy();
  return name;
}

// Both loops have it: the kernel spreads connections, so several in a row tell.
const shownByAll = (port, name) => eventually(`all loops show ${name}`, async () => (await Promise.all(Array.from({ length: 12 }, () => shown(port)))).every((n) => n === name));

function get(url, agent) {
  return new Promise((resolve, reject) => {
    const req = https.get(`${url}/v2/models/m`, { agent, rejectUnauthorized: false }, (res) => {
      const { socket } = res;
      res.resume().on('end', () => resolve({ status: res.statusCode, name: socket.getPeerCertificate().subject.CN, socket }));
    });
    req.on('error', reject);
  });
}

it('a renewed certificate is shown to new connections, while the open ones go on over HTTP/1.1 and HTTP/2', async () => {
  const g = await gateway();
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  const before = await get(g.url, agent);
  assert.equal(before.name, 'first');
  const session = http2.connect(g.url, { rejectUnauthorized: false });
  const ask = async () => {
    const stream = session.request({ ':path': '/v2/models/m' });
    const [head] = await once(stream, 'response');
    stream.resume();
    await once(stream, 'end');
    return head[':status'];
  };
  assert.equal(await ask(), 200);
  await cp(`${g.dir}/second.key`, `${g.dir}/tls.key`);
  await cp(`${g.dir}/second.pem`, `${g.dir}/tls.pem`);
  g.proc.child.kill('SIGHUP'); // without it, within two seconds
  await shownByAll(g.port, 'second');
  const after = await get(g.url, agent);
  assert.equal(after.status, 200);
  assert.equal(after.socket, before.socket); // the same connection, and it still works
  assert.equal(await ask(), 200);
  session.close();
  agent.destroy();
  const text = await new Promise((done) => https.get(`${g.url}/metrics`, { rejectUnauthorized: false }, async (res) => {
    let all = '';
    for await (const c of res) all += c;
    done(all);
  }));
  assert.match(text, /atoll_gateway_tls_reloads_total\{result="ok"\} 1/);
  const expires = Number(/atoll_gateway_tls_certificate_expires_timestamp_seconds (\d+)/.exec(text)[1]);
  assert.ok(Math.abs(expires - Date.now() / 1000 - 2 * 86400) < 3600, `expires ${expires}`);
  g.back.close();
});

it('a broken file, a key that does not fit and a missing file keep the old certificate, and say so', async () => {
  const g = await gateway();
  await writeFile(`${g.dir}/tls.pem`, '-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n');
  g.proc.child.kill('SIGHUP');
  await g.proc.line(/"event":"tls\.reload\.failed"[^\n]*no PEM certificate[^\n]*stays in use/, { stream: 'err' });
  assert.equal(await shown(g.port), 'first');
  await cp(`${g.dir}/second.pem`, `${g.dir}/tls.pem`); // the key is still the first one's
  g.proc.child.kill('SIGHUP');
  await g.proc.line(/"event":"tls\.reload\.failed"[^\n]*certificate and its key/, { stream: 'err' });
  assert.equal(await shown(g.port), 'first');
  await unlink(`${g.dir}/tls.pem`);
  await eventually('the missing file is told', () => g.proc.err.match(/tls\.reload\.failed/g).length === 3); // by itself, without a signal
  assert.equal(await shown(g.port), 'first');
  await symlink('third.pem', `${g.dir}/link`); // as mounted secrets are switched
  await rename(`${g.dir}/link`, `${g.dir}/tls.pem`);
  await cp(`${g.dir}/third.key`, `${g.dir}/tls.key`);
  await shownByAll(g.port, 'third');
  assert.equal(g.proc.err.match(/tls\.reload\.failed/g).length, 3); // each told once, not at every look
  g.back.close();
});
