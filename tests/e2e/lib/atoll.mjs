// The real binary under test: servers on free ports with their own state folders, and kubectl and atoll as clients.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, realpathSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Proc, run } from './proc.mjs';

export { Proc, run };

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');

function firstThatExists(candidates, what) {
  const found = candidates.find((c) => c && existsSync(c));
  if (!found) throw new Error(`${what} is missing; looked for ${candidates.filter(Boolean).join(', ')}`);
  return found;
}

export const ATOLL = firstThatExists(
  [process.env.ATOLL_BIN, path.join(ROOT, 'build/asan/atoll'), path.join(ROOT, 'build/d/atoll'), path.join(ROOT, 'build/atoll')],
  'the atoll binary (set ATOLL_BIN)',
);

// A build without sanitizers, whose shadow memory is more than any limit on memory; undefined: none is there.
export const PLAIN = ['build/release/atoll', 'build/r/atoll', 'build/atoll'].map((name) => path.join(ROOT, name)).find((name) => existsSync(name));

export const KUBECTL = firstThatExists(
  [
    process.env.ATOLL_KUBECTL,
    process.env.KUBECTL,
    path.join(ROOT, 'third_party/bin/kubectl'),
    path.join(ROOT, 'third_party/kubectl/kubectl'),
    ...(process.env.PATH ?? '').split(':').map((dir) => path.join(dir, 'kubectl')),
  ],
  'kubectl (run tools/fetch-third-party kubectl, or set ATOLL_KUBECTL)',
);

// kubectl in several versions: ours, and of those on the PATH (a distribution's, an SDK's with several beside it) the oldest
// and the newest; with ATOLL_EVERY_KUBECTL all of them.
export const KUBECTLS = (() => {
  const found = [KUBECTL];
  for (const dir of new Set((process.env.PATH ?? '').split(':').filter(Boolean))) {
    const there = existsSync(path.join(dir, 'kubectl')) ? realpathSync(path.join(dir, 'kubectl')) : null;
    if (!there) continue;
    const beside = readdirSync(path.dirname(there)).filter((name) => /^kubectl(\.1\.\d+)?$/.test(name));
    found.push(...beside.map((name) => path.join(path.dirname(there), name)));
  }
  const list = [];
  for (const file of found) {
    try {
      const version = JSON.parse(execFileSync(file, ['version', '--client', '-o', 'json'], { stdio: ['ignore', 'pipe', 'ignore'] })).clientVersion.gitVersion;
      const minor = Number(/^v1\.(\d+)/.exec(version)[1]);
      if (!list.some((k) => k.minor === minor)) list.push({ path: file, version, minor });
    } catch {
      // not one that runs here
    }
  }
  const others = list.slice(1).sort((a, b) => a.minor - b.minor);
  return [list[0], ...(process.env.ATOLL_EVERY_KUBECTL ? others : new Set([others[0], others.at(-1)].filter(Boolean)))];
})();

// Everything one test file starts. Closed after its last test, in the reverse order of starting.
export class Fleet {
  constructor() {
    this.procs = [];
    this.dirs = [];
    after(() => this.close());
  }

  async dir(name = 'atoll') {
    const dir = await mkdtemp(path.join(process.env.TMPDIR || tmpdir(), `${name}-`));
    this.dirs.push(dir);
    return dir;
  }

  async file(name, text) {
    const file = path.join(await this.dir('atoll-file'), name);
    await writeFile(file, text);
    return file;
  }

  start(name, args, options = {}) {
    const proc = new Proc(name, options.command ?? ATOLL, args, options);
    this.procs.push(proc);
    return proc;
  }

  async server({ state, args = [], env, listen = '127.0.0.1:0' } = {}) {
    const server = new Server(this, state ?? (await this.dir('atoll-state')), args, env, listen);
    await server.start();
    return server;
  }

  // A test whose failure comes with the logs of all that runs.
  it(name, fn, options = {}) {
    return test(name, { timeout: 120_000, ...options }, async (t) => {
      try {
        await fn(t);
      } catch (error) {
        for (const proc of this.procs) t.diagnostic(proc.log());
        throw error;
      }
    });
  }

  async close() {
    const bad = [];
    for (const proc of this.procs.reverse()) {
      if (proc.ended) continue;
      try {
        const status = await proc.stop();
        if (status.code !== 0) bad.push(proc.log(20_000));
      } catch (error) {
        bad.push(String(error));
      }
    }
    for (const dir of this.dirs) await rm(dir, { recursive: true, force: true });
    assert.deepEqual(bad, [], `did not end cleanly:\n${bad.join('\n')}`);
  }
}

export class Server {
  constructor(fleet, state, args, env, listen) {
    Object.assign(this, { fleet, state, args, env, listen });
    this.kubeconfig = path.join(state, 'admin.kubeconfig');
  }

  async start() {
    this.proc = this.fleet.start('atoll server', ['server', '--state', this.state, '--listen', this.listen, ...this.args], { env: this.env });
    const [, url] = await this.proc.line(/^ready server (https:\/\/\S+)$/m);
    this.url = url;
    this.listen = new URL(url).host; // a restart serves on the same address
    return this;
  }

  async stop(options) {
    const status = await this.proc.stop(options);
    assert.equal(status.code, 0, this.proc.log());
  }

  async restart() {
    await this.stop();
    await this.start();
  }

  async #clientEnv() {
    this.home ??= await this.fleet.dir('atoll-home');
    return { KUBECONFIG: this.kubeconfig, HOME: this.home, KUBECACHEDIR: path.join(this.home, 'cache'), EDITOR: '', KUBE_EDITOR: '', NO_COLOR: '1' };
  }

  // kubectl ARGS... Returns {code, out, err}.
  async kubectl(args, options = {}) {
    const env = { ...(await this.#clientEnv()), ...options.env };
    return run(options.command ?? KUBECTL, split(args), { ...options, env });
  }

  // As kubectl, but an exit status other than 0 fails the test. Returns standard output.
  async k(args, options = {}) {
    const r = await this.kubectl(args, options);
    assert.equal(r.code, 0, `kubectl ${args}: exit ${r.code}\n${r.out}\n${r.err}`);
    return r.out;
  }

  // As kubectl, but must fail; returns standard error.
  async kFails(args, pattern, options = {}) {
    const r = await this.kubectl(args, options);
    assert.notEqual(r.code, 0, `kubectl ${args} should have failed\n${r.out}`);
    assert.match(r.err, pattern);
    return r.err;
  }

  async apply(manifest, args = []) {
    return this.k(['apply', '-f', '-', ...split(args)], { input: yaml(manifest) });
  }

  async get(args) {
    return JSON.parse(await this.k([...split('get -o json'), ...split(args)]));
  }

  // kubectl in the background, such as get -w. Ended by the test or the fleet.
  async kubectlStart(args, { command = KUBECTL } = {}) {
    const proc = this.fleet.start(`kubectl ${args}`, split(args), { command, env: await this.#clientEnv() });
    return proc;
  }

  async atoll(args, options = {}) {
    const env = { ...(await this.#clientEnv()), ...options.env };
    return run(ATOLL, split(args), { ...options, env });
  }
}

// 'get site a' -> words; arrays stay as they are (for arguments with blanks).
export function split(args) {
  return Array.isArray(args) ? args : args.split(/\s+/).filter(Boolean);
}

// Objects as a YAML stream (JSON is YAML); text stays as it is.
export function yaml(manifest) {
  if (typeof manifest === 'string') return manifest;
  // The comment first: kubectl takes a stream that begins with { for JSON documents only.
  return ['# YAML', ...(Array.isArray(manifest) ? manifest : [manifest]).map((o) => JSON.stringify(o))].join('\n---\n');
}

export const site = (name, spec = {}, metadata = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Site',
  metadata: { name, ...metadata },
  spec: { class: 'edge', jurisdiction: 'EU', ...spec },
});

export const deployment = (name, spec = {}, metadata = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Deployment',
  metadata: { name, ...metadata },
  spec: { replicas: 2, template: { spec: { command: ['sleep', '1000'] } }, ...spec },
});

export const configMap = (name, data = {}, metadata = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ...metadata }, data });

// Wait for something that no event tells of: ask until it holds.
export async function eventually(what, ask, { timeoutMs = 20_000, everyMs = 50 } = {}) {
  const end = Date.now() + timeoutMs;
  let last;
  for (;;) {
    try {
      const value = await ask();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms; last: ${last?.stack ?? JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
