// Requests through a gateway, and the small model servers behind it.
import { once } from 'node:events';
import http from 'node:http';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

// A server as an instance: answers everything with its own name after SLOW_MS; ready after START_MS; drains on SIGTERM
// unless RUDE is set.
export const SERVER = `
import http from 'node:http';
const { PORT, SLOW_MS = '0', START_MS = '0', NAME = 'x' } = process.env;
const server = http.createServer((req, res) => {
  req.resume();
  req.on('end', () => setTimeout(() => res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ name: NAME, pid: process.pid })), req.url === '/' ? 0 : Number(SLOW_MS)));
});
server.keepAliveTimeout = 60_000;
setTimeout(() => server.listen(Number(PORT), '127.0.0.1'), Number(START_MS));
process.on('SIGTERM', () => {
  if (process.env.RUDE) process.exit(0);
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
`;

export async function serverScript(fleet) {
  const dir = await fleet.dir('atoll-replica');
  const file = path.join(dir, 'server.mjs');
  await writeFile(file, SERVER);
  return file;
}

export function modelServer(name, script, { replicas = 1, env = {}, spec = {}, workload = {} } = {}) {
  return {
    apiVersion: 'atoll.dev/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default' },
    spec: {
      replicas,
      ...spec,
      template: {
        spec: {
          command: [process.execPath, script],
          env: Object.entries({ NAME: name, ...env }).map(([n, value]) => ({ name: n, value: String(value) })),
          resources: { cpu: '50m', memory: '64Mi' },
          readinessProbe: { httpPath: '/', period: '50ms' },
          terminationGracePeriod: '3s',
          ...workload,
        },
      },
    },
  };
}

// A gateway with routes from a file. models: {name: [endpoint]}, policies: {name: parts of a Deployment's spec}.
export async function staticGateway(fleet, models, { policies = {}, args = [], backend, threads = 1 } = {}) {
  const routes = {
    models: Object.fromEntries(Object.entries(models).map(([name, list]) => [name, list.map((e, i) => (typeof e === 'string' ? { endpoint: e, instance: `${name}-${i}`, site: `site-${i}` } : e))])),
    policies,
  };
  const file = await fleet.file('routes.json', JSON.stringify(routes));
  const proc = fleet.start(`gateway ${Object.keys(models)}`, ['gateway', '--static-routes', file, '--listen', '127.0.0.1:0', '--threads', String(threads), ...(backend ? ['--loop-backend', backend] : []), ...args]);
  const [, url] = await proc.line(/^ready gateway (\S+)$/m);
  return new Gateway(url, null, proc);
}

export class Gateway {
  constructor(url, token, proc) {
    Object.assign(this, { url, token, proc, agent: new http.Agent({ keepAlive: true, maxSockets: 1000 }) });
  }

  // Resolves to {status, headers, body, error}; never rejects. abort: an AbortSignal.
  ask(target, { method = 'POST', body = '{}', headers = {}, signal, agent = this.agent } = {}) {
    return new Promise((resolve) => {
      const own = { 'Content-Type': 'application/json', ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}), ...headers };
      let text = '';
      const req = http.request(new URL(target, this.url), { method, headers: own, agent, signal }, (res) => {
        res.on('data', (d) => (text += d));
        res.on('end', () => resolve({ status: res.statusCode, headers: res.headers, body: text, at: Date.now() }));
        res.on('error', (error) => resolve({ status: res.statusCode, headers: res.headers, body: text, error: String(error) }));
      });
      req.on('error', (error) => resolve({ error: String(error), body: text }));
      req.end(method === 'GET' ? undefined : body);
    });
  }

  infer(model, options = {}) {
    return this.ask(`/v2/models/${model}/infer`, options);
  }

  chat(model, options = {}) {
    return this.ask('/v1/chat/completions', { body: JSON.stringify({ model, messages: [], ...options.json }), ...options });
  }

  async metrics() {
    return (await this.ask('/metrics', { method: 'GET' })).body;
  }

  // The sum of a family's series whose labels hold all of these.
  async metric(name, labels = {}) {
    let sum = 0;
    for (const line of (await this.metrics()).split('\n')) {
      const m = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (m?.[1] === name && Object.entries(labels).every(([k, v]) => (m[2] ?? '').includes(`${k}="${v}"`))) sum += Number(m[3]);
    }
    return sum;
  }
}

// A replica of this process. answer(req, res, body, self) does it all.
export async function replica(answer = (req, res) => res.writeHead(200, { 'Content-Type': 'application/json' }).end('{"ok":true}')) {
  const self = { seen: [], open: 0, most: 0 };
  self.server = http.createServer(async (req, res) => {
    const chunks = [];
    try {
      for await (const c of req) chunks.push(c);
    } catch {
      return; // the gateway cut it
    }
    const body = Buffer.concat(chunks).toString();
    self.seen.push({ url: req.url, headers: req.headers, body });
    self.most = Math.max(self.most, ++self.open);
    res.on('close', () => {
      self.open--;
      if (!res.writableFinished) self.cut = (self.cut ?? 0) + 1;
    });
    await answer(req, res, body, self);
  });
  self.server.keepAliveTimeout = 60_000;
  self.server.listen(0, '127.0.0.1');
  await once(self.server, 'listening');
  self.server.unref();
  self.endpoint = `127.0.0.1:${self.server.address().port}`;
  self.stop = () => {
    self.server.closeAllConnections();
    return new Promise((done) => self.server.close(done));
  };
  return self;
}
