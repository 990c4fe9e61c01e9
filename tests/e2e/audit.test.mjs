// The audit log of the real server: what it records, what it never holds, and that damage to it is found.
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ATOLL, Fleet, configMap, run } from './lib/atoll.mjs';
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
