// Sinks of the audit log that are away, hang or break while clients write and servers are killed: nothing is lost, nothing comes
// twice that a sink has acknowledged before, and memory and disk stay within their bounds.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { Agent } from 'node:https';
import { createServer as createTcp } from 'node:net';
import path from 'node:path';
import { ATOLL, Fleet, configMap, eventually, run } from './lib/atoll.mjs';
import { freePort } from './lib/etcd.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const MAPS = '/api/v1/namespaces/default/configmaps';

// An HTTP collector. mode: up, hang (no answer), 500 (read, not kept), cut (closed in the middle).
class Collector {
  mode = 'up';
  records = [];
  tries = 0;

  async open(port) {
    this.server = createHttp((req, res) => {
      const { mode } = this;
      let text = '';
      this.tries++;
      if (mode === 'cut') req.once('data', () => req.socket.destroy());
      req.on('error', () => {});
      req.on('data', (d) => { text += d; });
      req.on('end', () => {
        if (mode === 'up') this.records.push(...JSON.parse(text));
        if (mode !== 'hang') res.writeHead(mode === 'up' ? 200 : 500).end();
      });
    });
    await new Promise((resolve) => this.server.listen(port, '127.0.0.1', resolve));
  }

  close() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

// A syslog receiver (RFC 6587 octet counting). deaf: it accepts and does not read.
class Syslog {
  deaf = false;
  records = [];
  broken = 0;
  sockets = new Set();

  async open(port) {
    this.server = createTcp((socket) => {
      let text = Buffer.alloc(0);
      this.sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => { this.sockets.delete(socket); this.broken += text.length > 0 ? 1 : 0; });
      if (this.deaf) socket.pause();
      socket.on('data', (d) => {
        if (this.deaf) { socket.pause(); return; }
        text = Buffer.concat([text, d]);
        for (;;) {
          const space = text.indexOf(' ');
          const len = Number(text.subarray(0, space).toString());
          if (space < 0 || text.length < space + 1 + len) return;
          const message = text.subarray(space + 1, space + 1 + len).toString();
          this.records.push(JSON.parse(message.slice(message.indexOf('{'))));
          text = text.subarray(space + 1 + len);
        }
      });
    });
    await new Promise((resolve) => this.server.listen(port, '127.0.0.1', resolve));
  }

  drop() {
    for (const socket of this.sockets) socket.destroy();
  }

  close() {
    this.drop();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

// Clients that write as fast as they may until told to stop; the names of all that was answered.
function load(admin, name, clients = 8) {
  const made = [];
  let going = true;
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const one = async (c) => {
    for (let i = 0; going; i++) {
      const object = configMap(`${name}-${c}-${i}`);
      const answer = await call({ ...admin, agent }, 'POST', MAPS, object).catch(() => undefined);
      if (answer?.status === 201) made.push(object.metadata.name);
      else if (answer === undefined) return; // the server was killed
    }
  };
  const all = Promise.all(Array.from({ length: clients }, (_, c) => one(c)));
  return { made, end: async () => { going = false; await all; agent.destroy(); return made; } };
}

const logFiles = (state) => readdirSync(state).filter((f) => /^audit.*log/.test(f)).map((f) => path.join(state, f));
const logged = (state) => logFiles(state).flatMap((f) => readFileSync(f, 'utf8').split('\n').filter(Boolean).map((l) => JSON.parse(l))).filter((l) => l.seq);
const times = (records) => records.reduce((m, r) => m.set(r.seq, (m.get(r.seq) ?? 0) + 1), new Map());

fleet.it('sinks that are away, hang, break and come back, under load and over kills: each has every record', async () => {
  const [httpPort, syslogPort] = [await freePort(), await freePort()];
  const args = ['--audit-sink', `http://127.0.0.1:${httpPort}/`, '--audit-sink', `syslog+tcp://127.0.0.1:${syslogPort}`, '--audit-bytes', '8Mi'];
  const server = await fleet.server({ args });
  const [collector, syslog] = [new Collector(), new Syslog()];
  const admin = await credentials(server.kubeconfig);
  const made = [];
  const until = async (name, what, done) => {
    const writers = load(admin, name);
    await eventually(what, () => writers.made.length >= 60 && done());
    made.push(...(await writers.end()));
  };
  // Nobody listens; then one that never answers, and one that accepts and does not read.
  await until('away', 'much was written without any sink', () => true);
  Object.assign(collector, { mode: 'hang' });
  Object.assign(syslog, { deaf: true });
  await Promise.all([collector.open(httpPort), syslog.open(syslogPort)]);
  await until('hang', 'both were asked', () => collector.tries > 0 && syslog.sockets.size > 0);
  // Killed in the middle of writing.
  const writers = load(admin, 'killed');
  await eventually('it writes', () => writers.made.length > 40);
  await server.proc.kill('SIGKILL');
  made.push(...(await writers.end()));
  collector.mode = '500';
  await server.start();
  await until('broken', 'the collector refused it', () => collector.tries > 1);
  collector.mode = 'cut';
  syslog.drop();
  const before = collector.tries;
  await until('cut', 'the collector broke off', () => collector.tries > before);
  const metrics = (await call(admin, 'GET', '/metrics')).body;
  const behind = Number(/atoll_audit_sink_behind\{sink="http[^"]*"\} (\d+)/.exec(metrics)[1]);
  assert.ok(behind >= made.length, `how much it lacks is told: ${behind}`);
  assert.ok(logFiles(server.state).reduce((sum, f) => sum + statSync(f).size, 0) < 9 << 20);
  // Back again, while clients write on.
  collector.mode = 'up';
  syslog.deaf = false;
  syslog.drop();
  await until('back', 'both have what came at last', () => [collector, syslog].every((s) => s.records.some((r) => r.name === made.at(-1))));
  const names = (sink) => new Set(sink.records.map((r) => r.name));
  await eventually('both have everything that was answered', () => [collector, syslog].every((s) => made.every((name) => names(s).has(name))), { timeoutMs: 40_000 });
  await server.stop();
  const log = logged(server.state);
  for (const sink of [collector, syslog]) {
    const seen = times(sink.records);
    const last = Math.max(...seen.keys());
    for (let seq = 1; seq <= last; seq++) assert.ok(seen.has(seq), `record ${seq} of ${last} is there`);
    for (const line of log.filter((l) => l.seq <= last)) assert.equal(sink.records.find((r) => r.seq === line.seq).hash, line.hash);
  }
  const twice = [...times(collector.records).values()].filter((n) => n > 1).length;
  assert.equal(twice, 0, 'what a collector that answers has taken does not come again');
  const report = await run(ATOLL, ['audit', 'verify', server.state, '-o', 'json']);
  assert.equal(report.code, 0, report.err);
  await Promise.all([collector.close(), syslog.close()]);
});

fleet.it('a kill while a sink takes records repeats at most what came in the last second or so, and leaves no gap', async () => {
  const port = await freePort();
  const collector = new Collector();
  const server = await fleet.server({ args: ['--audit-sink', `http://127.0.0.1:${port}/`] });
  const admin = await credentials(server.kubeconfig);
  await collector.open(port);
  let made = [];
  for (let round = 0; round < 2; round++) {
    const writers = load(admin, `r${round}`);
    const from = collector.records.length;
    await eventually('records come', () => collector.records.length > from + 60);
    await server.proc.kill('SIGKILL');
    made = made.concat(await writers.end());
    await server.start();
  }
  await eventually('all that was answered is there', () => { const has = new Set(collector.records.map((r) => r.name)); return made.every((n) => has.has(n)); });
  await server.stop();
  const seqs = collector.records.map((r) => r.seq);
  let highest = 0;
  for (const seq of seqs) {
    assert.ok(seq <= highest + 1, `after ${highest} came ${seq}`);
    highest = Math.max(highest, seq);
  }
  const starts = seqs.filter((seq, i) => i > 0 && seq <= seqs[i - 1]).length;
  assert.ok(starts <= 2, 'once for each kill at most');
  await collector.close();
});
