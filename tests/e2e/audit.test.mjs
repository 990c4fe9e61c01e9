// The audit log of the real server: what it records, what it never holds, and that damage to it is found.
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Agent } from 'node:https';
import { createServer as createTcp } from 'node:net';
import path from 'node:path';
import { ATOLL, Fleet, configMap, eventually, run } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const MAPS = '/api/v1/namespaces/default/configmaps';

const lines = (server) => readFileSync(path.join(server.state, 'audit.log'), 'utf8').split('\n').filter(Boolean).map((l) => JSON.parse(l));
const verify = (state, ...args) => run(ATOLL, ['audit', 'verify', state, ...args]);

async function whole(state) {
  const r = await verify(state, '-o', 'json');
  assert.equal(r.code, 0, r.out + r.err);
  return JSON.parse(r.out);
}

fleet.it('each request leaves one line: who, by what, from where, what, decision, code', async () => {
  const server = await fleet.server();
  const admin = await credentials(server.kubeconfig);
  await call(admin, 'POST', MAPS, configMap('a'));
  await call(admin, 'GET', `${MAPS}/a`);
  await server.kFails('get secrets --as eve', /cannot list/);
  assert.equal((await call(admin, 'GET', '/no/such/path')).status, 404);
  assert.equal((await call(admin, 'DELETE', '/version')).status, 405);
  const denied = await run('curl', ['-sk', `${server.url}${MAPS}`, '-H', 'Authorization: Bearer guessed-token-guessed', '-i']);
  assert.match(denied.out, /401/);
  await server.stop();
  const all = lines(server).filter((l) => l.id);
  assert.equal(new Set(all.map((l) => l.id)).size, all.length);
  const [made] = all.filter((l) => l.verb === 'create' && l.resource === 'configmaps');
  assert.deepEqual(
    [made.user, made.groups, made.auth, made.namespace, made.name, made.decision, made.code],
    ['admin', ['system:masters'], 'certificate', 'default', 'a', 'allow', 201],
  );
  assert.match(made.from, /^127\.0\.0\.1:\d+$/);
  assert.ok(made.latencyUs > 0);
  assert.equal(all.filter((l) => l.verb === 'get' && l.path === `${MAPS}/a`).length, 1);
  assert.deepEqual(all.filter((l) => l.path === '/no/such/path' || l.path === '/version').map((l) => [l.verb, l.code]), [['get', 404], ['delete', 405]]);
  const [eve] = all.filter((l) => l.impersonatedUser === 'eve' && l.resource === 'secrets');
  assert.deepEqual([eve.user, eve.decision, eve.code], ['admin', 'deny', 403]);
  assert.match(eve.reason, /User "eve" cannot list resource "secrets"/);
  const [guess] = all.filter((l) => l.code === 401);
  assert.deepEqual([guess.decision, guess.path, guess.agent.split('/')[0]], ['unauthenticated', MAPS, 'curl']);
  assert.equal(readFileSync(path.join(server.state, 'audit.log'), 'utf8').includes('guessed-token'), false);
  await whole(server.state);
});

fleet.it('what was answered is in the log after kill -9, and the chain goes on', async () => {
  const server = await fleet.server();
  let made = 0;
  for (let round = 0; round < 3; round++) {
    const admin = await credentials(server.kubeconfig);
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => call(admin, 'POST', MAPS, configMap(`r${round}-${i}`))));
    made += answers.filter((a) => a.status === 201).length;
    await server.proc.kill('SIGKILL');
    await whole(server.state);
    await server.start();
  }
  await server.stop();
  assert.equal(made, 60);
  assert.equal(lines(server).filter((l) => l.verb === 'create' && l.code === 201 && l.resource === 'configmaps').length, made);
  await whole(server.state);
});

// A power cut loses what no sync had reached: the file is cut back to what audit.head promises, which is written after one.
fleet.it('a power cut that takes the unsynced end of the file takes no record of an answered change: the store has them', async () => {
  const server = await fleet.server();
  const file = path.join(server.state, 'audit.log');
  let made = 0;
  let cut = 0;
  for (let round = 0; round < 3; round++) {
    const admin = await credentials(server.kubeconfig);
    const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => call(admin, 'POST', MAPS, configMap(`p${round}-${i}`))));
    made += answers.filter((a) => a.status === 201).length;
    await server.proc.kill('SIGKILL');
    const { seq } = JSON.parse(readFileSync(path.join(server.state, 'audit.head'), 'utf8'));
    const text = readFileSync(file, 'utf8');
    const kept = text.split('\n').slice(0, -1).filter((l) => JSON.parse(l).seq <= seq);
    cut += text.split('\n').length - 1 - kept.length;
    writeFileSync(file, `${kept.join('\n')}\n{"seq":${seq + 1},"time":"20`);
    await server.start();
    await whole(server.state);
  }
  await server.stop();
  await whole(server.state);
  assert.ok(cut > 0, 'something was lost with the file');
  const all = lines(server);
  assert.equal(made, 90);
  assert.equal(all.filter((l) => l.verb === 'create' && l.code === 201 && l.resource === 'configmaps').length, made);
  assert.ok(all.filter((l) => l.event === 'recovered').reduce((n, l) => n + (l.records ?? 0), 0) > 0);
});

fleet.it('an edited, cut, reordered or lost record is found, in the running server\'s files too', async () => {
  const server = await fleet.server();
  const admin = await credentials(server.kubeconfig);
  for (let i = 0; i < 5; i++) await call(admin, 'POST', MAPS, configMap(`m${i}`));
  await server.stop();
  const file = path.join(server.state, 'audit.log');
  const good = readFileSync(file, 'utf8');
  const broken = {
    'line \\d+: it was changed': good.replace('"name":"m3"', '"name":"x3"'),
    'line \\d+: record \\d+ follows record': good.replace(/^.*"name":"m2".*\n/m, ''),
    'cut off': good.split('\n').slice(0, -3).join('\n') + '\n',
    'records are missing or in another order': good.replace(/^(.*"name":"m1".*\n)(.*\n)/m, '$2$1'),
  };
  for (const [why, text] of Object.entries(broken)) {
    assert.notEqual(text, good);
    writeFileSync(file, text);
    const r = await verify(server.state);
    assert.equal(r.code, 1, why);
    assert.match(r.err, new RegExp(why));
  }
  writeFileSync(file, good);
  await whole(server.state);
  assert.equal((await verify(await fleet.dir('nothing'))).code, 4);
});

fleet.it('levels: none keeps no log, changes leaves reads out', async () => {
  const none = await fleet.server({ args: ['--audit-level', 'none'] });
  await none.k('get nodes');
  assert.equal(existsSync(path.join(none.state, 'audit.log')), false);
  const changes = await fleet.server({ args: ['--audit-level', 'changes', '--audit-sync', 'never'] });
  const admin = await credentials(changes.kubeconfig);
  await call(admin, 'GET', MAPS);
  await call(admin, 'GET', '/api/v1/namespaces/default/secrets');
  await call(admin, 'POST', MAPS, configMap('c'));
  await changes.stop();
  const verbs = lines(changes).filter((l) => l.id).map((l) => `${l.verb} ${l.resource}`);
  assert.deepEqual(verbs, ['list secrets', 'create configmaps']);
  const bad = await run(ATOLL, ['server', '--audit-level', 'some']);
  assert.match(bad.err, /--audit-level: "some" is none of none, changes, requests, all/);
  appendFileSync(path.join(changes.state, 'audit.log'), '{"half');
  await changes.start();
  await changes.stop();
  await whole(changes.state);
});

const collected = (records) => {
  const seqs = records.map((r) => r.seq);
  const unique = [...new Set(seqs)];
  for (let i = 1; i < unique.length; i++) assert.equal(unique[i], unique[i - 1] + 1, 'no record is missing, none comes early');
  return unique;
};

fleet.it('an HTTP sink that is down for a while gets every record, once it is up, also over a restart of the server', async () => {
  const got = [];
  let up = false;
  const sink = createServer((req, res) => {
    let text = '';
    req.on('data', (d) => { text += d; });
    req.on('end', () => {
      if (up && req.headers.authorization === 'Bearer sink-token') got.push(...JSON.parse(text));
      res.writeHead(up ? 200 : 503).end();
    });
  });
  await new Promise((resolve) => sink.listen(0, '127.0.0.1', resolve));
  const token = await fleet.file('token', 'sink-token\n');
  const server = await fleet.server({ args: ['--audit-sink', `http://127.0.0.1:${sink.address().port}/in#token-file=${token}`] });
  let admin = await credentials(server.kubeconfig);
  for (let i = 0; i < 10; i++) await call(admin, 'POST', MAPS, configMap(`d${i}`));
  await server.restart();
  admin = await credentials(server.kubeconfig);
  up = true;
  await call(admin, 'POST', MAPS, configMap('last'));
  await eventually('the sink has all', () => got.some((r) => r.name === 'last'));
  await server.stop();
  sink.close();
  sink.closeAllConnections();
  const seqs = collected(got);
  assert.equal(seqs[0], 1);
  for (let i = 0; i < 10; i++) assert.ok(got.some((r) => r.name === `d${i}` && r.code === 201));
  const inLog = lines(server);
  for (const r of got) assert.equal(inLog.find((l) => l.seq === r.seq).hash, r.hash, 'a sink can check the chain itself');
});

fleet.it('syslog over TCP gets RFC 5424 messages in frames, again after the connection was lost', async () => {
  const messages = [];
  const sockets = new Set();
  let text = Buffer.alloc(0);
  const sink = createTcp((socket) => {
    sockets.add(socket);
    text = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (d) => {
      text = Buffer.concat([text, d]);
      for (;;) {
        const space = text.indexOf(' ');
        const len = Number(text.subarray(0, space).toString());
        if (space < 0 || text.length < space + 1 + len) return;
        messages.push(text.subarray(space + 1, space + 1 + len).toString());
        text = text.subarray(space + 1 + len);
      }
    });
  });
  await new Promise((resolve) => sink.listen(0, '127.0.0.1', resolve));
  const server = await fleet.server({ args: ['--audit-sink', `syslog+tcp://127.0.0.1:${sink.address().port}`] });
  const admin = await credentials(server.kubeconfig);
  await call(admin, 'POST', MAPS, configMap('one'));
  await eventually('the first is there', () => messages.some((m) => m.includes('"name":"one"')));
  for (const socket of sockets) socket.destroy();
  for (let i = 0; i < 5; i++) await call(admin, 'POST', MAPS, configMap(`x${i}`));
  await eventually('the rest is there', () => messages.some((m) => m.includes('"name":"x4"')));
  await server.stop();
  for (const socket of sockets) socket.destroy();
  sink.close();
  for (const m of messages) assert.match(m, /^<110>1 \d{4}-\d\d-\d\dT[\d:.]+Z \S+ atoll - audit \[meta sequenceId="\d+"\] \{"seq":\d+,/);
  const records = messages.map((m) => JSON.parse(m.slice(m.indexOf('{'))));
  collected(records);
  const bad = await run(ATOLL, ['server', '--state', await fleet.dir('bad'), '--listen', '127.0.0.1:0', '--audit-sink', 'ftp://x']);
  assert.match(bad.err, /audit sink ftp:\/\/x: it must begin with https:\/\//);
});

// A receiver that asks for a client certificate: openssl s_server, which prints what it is sent.
fleet.it('syslog over TLS goes to a receiver with the right certificate only, with a certificate of its own, and on after the receiver was away', async () => {
  const dir = await fleet.dir('sink');
  const at = (name) => path.join(dir, name);
  const openssl = async (...args) => assert.equal((await run('openssl', args)).code, 0, args.join(' '));
  const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl('req', '-x509', ...EC, '-keyout', at('ca.key'), '-out', at('ca.crt'), '-subj', '/CN=logs', '-days', '1');
  writeFileSync(at('ext'), 'subjectAltName=DNS:localhost\n');
  for (const name of ['sink', 'atoll']) {
    await openssl('req', ...EC, '-keyout', at(`${name}.key`), '-out', at('csr'), '-subj', `/CN=${name}`);
    await openssl('x509', '-req', '-in', at('csr'), '-CA', at('ca.crt'), '-CAkey', at('ca.key'), '-CAcreateserial', '-out', at(`${name}.crt`), '-days', '1', '-extfile', at('ext'));
  }
  await openssl('req', '-x509', ...EC, '-keyout', at('other.key'), '-out', at('other.crt'), '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '1');
  const free = createTcp();
  await new Promise((resolve) => free.listen(0, '127.0.0.1', resolve));
  const { port } = free.address();
  await new Promise((resolve) => free.close(resolve));
  const receiver = (cert) => fleet.start(`receiver ${cert}`, ['s_server', '-accept', String(port), '-quiet', '-tls1_3', '-cert', at(`${cert}.crt`), '-key', at(`${cert}.key`), '-Verify', '1', '-CAfile', at('ca.crt'), '-verify_return_error'], { command: 'openssl', stdin: 'pipe' });
  const stranger = receiver('other');
  const server = await fleet.server({ args: ['--audit-sink', `syslog+tls://localhost:${port}#ca=${at('ca.crt')}&cert=${at('atoll.crt')}&key=${at('atoll.key')}`] });
  const admin = await credentials(server.kubeconfig);
  await call(admin, 'POST', MAPS, configMap('first'));
  await eventually('it was tried', async () => /alert|error/i.test(stranger.err));
  assert.doesNotMatch(stranger.out, /"seq"/, 'nothing for a receiver that another authority vouches for');
  await stranger.kill();
  const good = receiver('sink');
  await good.line(/"name":"first"/);
  await good.kill();
  await call(admin, 'POST', MAPS, configMap('second'));
  const again = receiver('sink');
  await again.line(/"name":"second"/);
  await again.kill();
});

fleet.it('syslog over a Unix socket gets every record', async () => {
  const file = path.join(await fleet.dir('sink'), 'log');
  let text = '';
  const sockets = new Set();
  const sink = createTcp((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', (d) => { text += d; });
  });
  await new Promise((resolve) => sink.listen(file, resolve));
  const server = await fleet.server({ args: ['--audit-sink', `syslog+unix://${file}`] });
  const admin = await credentials(server.kubeconfig);
  for (let i = 0; i < 5; i++) await call(admin, 'POST', MAPS, configMap(`u${i}`));
  await eventually('all are there', () => text.includes('"name":"u4"'));
  await server.stop();
  for (const socket of sockets) socket.destroy();
  sink.close();
  for (let i = 0; i < 5; i++) assert.ok(text.includes(`"name":"u${i}"`));
  const bad = await run(ATOLL, ['server', '--state', await fleet.dir('bad'), '--listen', '127.0.0.1:0', '--audit-sink', 'syslog+udp://127.0.0.1:514']);
  assert.match(bad.err, /must begin with/, 'UDP loses records without anybody knowing');
});

fleet.it('a change that was recorded and then came to something else is said to have', async () => {
  const server = await fleet.server();
  const admin = await credentials(server.kubeconfig);
  const both = await Promise.all(Array.from({ length: 8 }, () => call(admin, 'POST', MAPS, configMap('same'))));
  assert.deepEqual(both.map((r) => r.status).sort(), [201, ...Array(7).fill(409)]);
  await server.stop();
  const all = lines(server);
  const made = all.filter((l) => l.name === 'same' && l.code === 201);
  const outcomes = all.filter((l) => l.event === 'outcome');
  const refused = all.filter((l) => l.name === 'same' && l.code === 409);
  assert.equal(made.length - outcomes.length, 1, 'one came to be');
  assert.equal(outcomes.length + refused.length, 7);
  for (const o of outcomes) {
    assert.equal(o.code, 409);
    assert.equal(all.find((l) => l.id === o.id && !l.event).code, 201, 'which one it is about');
  }
  assert.ok(outcomes.length > 0);
  await whole(server.state);
});

fleet.it('a log that is full because its sink is away refuses with a sentence, and goes on once the sink is back; nothing is lost', async () => {
  const got = new Set();
  let up = false;
  const sink = createServer((req, res) => {
    let text = '';
    req.on('data', (d) => { text += d; });
    req.on('end', () => {
      if (up) for (const r of JSON.parse(text)) got.add(r.seq);
      res.writeHead(up ? 200 : 503).end();
    });
  });
  await new Promise((resolve) => sink.listen(0, '127.0.0.1', resolve));
  const server = await fleet.server({ args: ['--audit-bytes', '1Mi', '--audit-sink', `http://127.0.0.1:${sink.address().port}/`] });
  const admin = { ...(await credentials(server.kubeconfig)), agent: new Agent({ keepAlive: true, maxSockets: 16 }) };
  let refusal;
  for (let i = 0; !refusal && i < 40; i++) {
    await Promise.all(Array.from({ length: 64 }, () => call(admin, 'GET', `/no${'/x'.repeat(490)}`)));
    const made = await call(admin, 'POST', MAPS, configMap(`c${i}`));
    if (made.status === 503) refusal = made.body.message;
    else assert.equal(made.status, 201);
  }
  assert.match(refusal, /cannot be recorded: the audit log holds all it may \(1048576 bytes\)/);
  assert.equal((await call(admin, 'GET', '/healthz')).status, 200);
  up = true;
  await eventually('it serves again', async () => (await call(admin, 'POST', MAPS, configMap(`r${Date.now()}`))).status === 201);
  admin.agent.destroy();
  await server.stop();
  const report = await whole(server.state);
  assert.ok(report.prunedSeq > 0 && report.lost === 0);
  for (let seq = 1; seq <= report.prunedSeq; seq++) assert.ok(got.has(seq), `the sink has record ${seq}, which was deleted here`);
  sink.close();
  sink.closeAllConnections();
});
