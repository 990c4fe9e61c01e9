// A real etcd on free loopback ports, with its data in a folder of the fleet.
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import path from 'node:path';
import { eventually } from './atoll.mjs';

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

export class Etcd {
  static async start(fleet) {
    return (await Etcd.cluster(fleet, 1))[0];
  }

  // Members of one cluster.
  static async cluster(fleet, n) {
    const members = [];
    for (let i = 0; i < n; i++) {
      const e = new Etcd();
      Object.assign(e, { fleet, name: `e${i}`, dir: await fleet.dir('atoll-etcd'), port: await freePort(), peer: await freePort() });
      members.push(e);
    }
    const all = members.map((e) => `${e.name}=http://127.0.0.1:${e.peer}`).join(',');
    await Promise.all(members.map((e) => Object.assign(e, { all }).start()));
    return members;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async start() {
    const peer = `http://127.0.0.1:${this.peer}`;
    const args = ['--name', this.name, '--data-dir', path.join(this.dir, 'data'), '--listen-client-urls', this.url, '--advertise-client-urls', this.url,
      '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', this.all, '--unsafe-no-fsync', '--logger=zap', '--log-level=error'];
    this.proc = this.fleet.start('etcd', args, { command: 'etcd' });
    this.proc.stop = () => this.proc.kill().then(() => ({ code: 0 })); // it has nothing to end politely
    await eventually('etcd is healthy', async () => (await (await fetch(`${this.url}/health`)).json()).health === 'true');
  }

  async kill() {
    await this.proc.kill('SIGKILL');
  }

  signal(name) {
    this.proc.child.kill(name);
  }
}
