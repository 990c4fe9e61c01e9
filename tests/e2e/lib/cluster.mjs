// A server with agents on sites: each agent a process of its own with its own state folder, joined by token.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { request } from 'node:http';
import path from 'node:path';
import { ATOLL, eventually, Fleet, site } from './atoll.mjs';
import { call, credentials } from './rest.mjs';

// Processes whose environment or command line holds text: the way to find what an instance left behind.
export function processesWith(text) {
  const found = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    try {
      const all = readFileSync(`/proc/${pid}/environ`, 'latin1') + readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      if (all.includes(text)) found.push({ pid: Number(pid), exe: readlinkSync(`/proc/${pid}/exe`), args: readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0').join(' ') });
    } catch {
      // it has ended, or is not ours to read
    }
  }
  return found;
}

export class Cluster {
  // nodes: {name: site}
  static async start(fleet, nodes, { args = ['--node-timeout', '3s'], agentArgs = [], devices = {} } = {}) {
    const c = new Cluster();
    Object.assign(c, { fleet, agentArgs, devices, agents: {}, mark: `atoll-e2e-${process.pid}-${Date.now()}` });
    c.server = await fleet.server({ args });
    c.admin = await credentials(c.server.kubeconfig);
    await c.server.apply([...new Set(Object.values(nodes))].map((name) => site(name)));
    await Promise.all(Object.entries(nodes).map(([name, where]) => c.join(name, where)));
    await eventually('nodes are ready', async () => {
      const list = await c.list('nodes');
      return list.length === Object.keys(nodes).length && list.every((n) => condition(n, 'Ready') === 'True');
    });
    return c;
  }

  async join(name, where) {
    const answer = await call(this.admin, 'POST', '/join/v1/tokens', { role: 'agent', site: where, ttl: '1h' });
    this.agents[name] = { state: await this.fleet.dir(`atoll-agent-${name}`), token: answer.body.token, pin: answer.body.caPin };
    await this.startAgent(name);
  }

  async startAgent(name) {
    const a = this.agents[name];
    const args = ['agent', '--server', this.server.url, '--token', a.token, '--ca-pin', a.pin, '--name', name, '--state', a.state, '--stop-instances', ...this.agentArgs];
    if (this.devices?.[name]) args.push('--devices', this.devices[name]);
    a.proc = this.fleet.start(`agent ${name}`, args, { env: this.agentEnv });
    await a.proc.line(/^ready agent /m);
  }

  // kill -9 of the agent; what it runs goes on, as on a machine whose agent crashed.
  async killAgent(name) {
    await this.agents[name].proc.kill('SIGKILL');
  }

  get url() {
    return { ...this.admin, url: this.server.url };
  }

  async list(kind) {
    const group = '/apis/atoll.dev/v1/';
    return (await call(this.url, 'GET', `${group}${kind}`)).body.items;
  }

  async get(kind, name) {
    const answer = await call(this.url, 'GET', `/apis/atoll.dev/v1/namespaces/default/${kind}/${name}`);
    if (answer.status !== 200) throw new Error(`${kind} ${name}: ${answer.status}`);
    return answer.body;
  }

  async instances(owner) {
    return (await this.list('instances')).filter((i) => !owner || i.metadata.ownerReferences?.[0]?.name === owner);
  }

  async patch(kind, name, body) {
    const answer = await call(this.url, 'PATCH', `/apis/atoll.dev/v1/namespaces/default/${kind}/${name}`, body, { 'Content-Type': 'application/merge-patch+json' });
    if (answer.status !== 200) throw new Error(`patch ${name}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  async ready(name, options) {
    return eventually(`deployment ${name} is ready`, async () => {
      const d = await this.get('deployments', name);
      return d.status?.observedGeneration === d.metadata.generation && condition(d, 'Ready') === 'True' && d;
    }, options);
  }
}

export function condition(object, type) {
  return object.status?.conditions?.find((c) => c.type === type)?.status;
}

// A Deployment of a small web server: busybox httpd serving a folder, marked so that it can be found in /proc.
export function web(name, cluster, { replicas = 2, root, cpu = '100m', spec = {} } = {}) {
  return {
    apiVersion: 'atoll.dev/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default' },
    spec: {
      replicas,
      template: {
        spec: {
          command: ['busybox', 'httpd', '-f', '-p', '127.0.0.1:$(PORT)', '-h', root],
          env: [{ name: 'MARK', value: cluster.mark }],
          resources: { cpu, memory: '32Mi' },
          readinessProbe: { httpPath: '/', period: '100ms' },
          terminationGracePeriod: '2s',
          ...spec,
        },
      },
    },
  };
}

export async function webRoot(fleet, text) {
  const dir = await fleet.dir('atoll-web');
  await writeFile(path.join(dir, 'index.html'), text);
  return dir;
}

// Resolves to {status, body}, or {error}.
export function fetchFrom(endpoint, target = '/', { method = 'GET', body, headers = {} } = {}) {
  const [host, port] = [endpoint.slice(0, endpoint.lastIndexOf(':')), endpoint.slice(endpoint.lastIndexOf(':') + 1)];
  return new Promise((resolve) => {
    const req = request({ host, port, path: target, method, headers, agent: false, timeout: 5000 }, (res) => {
      let text = '';
      res.on('data', (d) => {
        text += d;
      });
      res.on('end', () => resolve({ status: res.statusCode, body: text }));
      res.on('error', (error) => resolve({ error: String(error) }));
    });
    req.on('timeout', () => req.destroy(new Error('timeout')));
    req.on('error', (error) => resolve({ error: String(error) }));
    req.end(body);
  });
}

export function listens(endpoint) {
  const at = endpoint.lastIndexOf(':');
  return new Promise((resolve) => {
    const socket = connect({ host: endpoint.slice(0, at), port: Number(endpoint.slice(at + 1)) });
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

export { ATOLL, Fleet };
