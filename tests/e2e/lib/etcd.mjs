// A real etcd on free loopback ports, with its data in a folder of the fleet.
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { eventually, run } from './atoll.mjs';

export const ETCD_MISSING = (() => {
  try {
    execFileSync('etcd', ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'etcd is not installed (package etcd-server)';
  }
})();

export function freePort() {
  return new Promise((resolve, reject) => {
    const s = createServer();
    s.on('error', reject);
    s.listen(0, '127.0.0.1', () => {
      const { port } = s.address();
      s.close(() => resolve(port));
    });
  });
}

async function openssl(...args) {
  const r = await run('openssl', args);
  if (r.code !== 0) throw new Error(`openssl ${args[0]}: ${r.err}`);
}

// An authority, a certificate of etcd and one of a client, as files: {dir, ca, cert, key, clientCert, clientKey}. With dir they
// take the place of those made there before.
export async function certificates(fleet, dir) {
  dir ??= await fleet.dir('atoll-etcd-tls');
  const file = (name) => path.join(dir, name);
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl('req', '-x509', ...ec, '-keyout', file('ca.key'), '-out', file('ca.crt'), '-subj', '/CN=test etcd CA', '-days', '2');
  const issue = async (name, extensions) => {
    await writeFile(file(`${name}.ext`), extensions);
    await openssl('req', '-new', ...ec, '-keyout', file(`${name}.key`), '-out', file(`${name}.csr`), '-subj', `/CN=${name}`);
    await openssl('x509', '-req', '-in', file(`${name}.csr`), '-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-CAcreateserial', '-days', '2', '-out', file(`${name}.crt`), '-extfile', file(`${name}.ext`));
  };
  // etcd's JSON gateway calls etcd itself with its own certificate: so that is one of a client, too.
  await issue('etcd', 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n');
  await issue('client', 'extendedKeyUsage=clientAuth\n');
  return { dir, ca: file('ca.crt'), cert: file('etcd.crt'), key: file('etcd.key'), clientCert: file('client.crt'), clientKey: file('client.key') };
}

export class Etcd {
  static async start(fleet, options) {
    return (await Etcd.cluster(fleet, 1, options))[0];
  }

  // Members of one cluster. tls: certificates(); clients then need one.
  static async cluster(fleet, n, { tls } = {}) {
    const members = [];
    for (let i = 0; i < n; i++) {
      const e = new Etcd();
      Object.assign(e, { fleet, tls, name: `e${i}`, dir: await fleet.dir('atoll-etcd'), port: await freePort(), peer: await freePort() });
      members.push(e);
    }
    const all = members.map((e) => `${e.name}=http://127.0.0.1:${e.peer}`).join(',');
    await Promise.all(members.map((e) => Object.assign(e, { all }).start()));
    return members;
  }

  get url() {
    return `${this.tls ? 'https' : 'http'}://127.0.0.1:${this.port}`;
  }

  // A call of etcd's own API.
  async call(target, body, token) {
    const r = await fetch(`${this.url}${target}`, { method: 'POST', body: JSON.stringify(body), headers: token ? { Authorization: token } : {} });
    const text = await r.text();
    if (!r.ok) throw new Error(`${target}: ${r.status} ${text}`);
    return JSON.parse(text);
  }

  async start() {
    const peer = `http://127.0.0.1:${this.peer}`;
    const args = ['--name', this.name, '--data-dir', path.join(this.dir, 'data'), '--listen-client-urls', this.url, '--advertise-client-urls', this.url,
      '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', this.all, '--unsafe-no-fsync', '--logger=zap', '--log-level=error'];
    if (this.tls) args.push('--cert-file', this.tls.cert, '--key-file', this.tls.key, '--trusted-ca-file', this.tls.ca, '--client-cert-auth');
    const metrics = this.tls && `http://127.0.0.1:${(this.plain ??= await freePort())}`; // health without a certificate
    if (metrics) args.push('--listen-metrics-urls', metrics);
    const old = this.fleet.procs.indexOf(this.proc);
    this.proc = this.fleet.start('etcd', args, { command: 'etcd' });
    if (old >= 0) this.fleet.procs[old] = this.fleet.procs.pop(); // ended after the servers that use it, like the first one
    this.proc.stop = () => this.proc.kill().then(() => ({ code: 0 })); // it has nothing to end politely
    await eventually('etcd is healthy', async () => (await (await fetch(`${metrics || this.url}/health`)).json()).health === 'true');
  }

  async kill() {
    await this.proc.kill('SIGKILL');
  }

  signal(name) {
    this.proc.child.kill(name);
  }
}
