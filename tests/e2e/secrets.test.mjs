// Secrets at rest: sealed in every store and in backups, keys rotated under load, a lost key file refused, nothing lost.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ATOLL, Fleet, eventually, run } from './lib/atoll.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const SECRETS = '/api/v1/namespaces/default/secrets';
const PLAIN = 'correct-horse-battery';
const CODED = Buffer.from(PLAIN).toString('base64');
const secret = (name, text = PLAIN) => ({ apiVersion: 'v1', kind: 'Secret', metadata: { name }, data: { password: Buffer.from(text).toString('base64') } });

// Every file below dir that holds text.
function filesWith(dir, text) {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => path.join(e.parentPath ?? e.path, e.name))
    .filter((file) => readFileSync(file).includes(text));
}

function assertNowhere(dir) {
  for (const text of [PLAIN, CODED]) assert.deepEqual(filesWith(dir, text), []);
}

async function make(admin, n) {
  for (let i = 0; i < n; i++) assert.equal((await call(admin, 'POST', SECRETS, secret(`s${i}`))).status, 201);
}

async function readAll(admin, n) {
  const list = await call(admin, 'GET', SECRETS);
  assert.equal(list.status, 200, JSON.stringify(list.body));
  assert.equal(list.body.items.length, n);
  for (const s of list.body.items) assert.equal(s.data.password, CODED);
}

async function keys(server) {
  const r = await server.atoll('secrets status -o json');
  assert.equal(r.code, 0, r.err);
  return JSON.parse(r.out);
}

fleet.it('no file of the server holds a Secret, and clients read, list and watch them as ever', async () => {
  const server = await fleet.server();
  const admin = await credentials(server.kubeconfig);
  const watch = call(admin, 'GET', `${SECRETS}?watch=true&timeoutSeconds=2`);
  await make(admin, 3);
  await readAll(admin, 3);
  assert.match(JSON.stringify((await watch).body), new RegExp(CODED));
  const copy = { ...secret('s0', 'other'), metadata: { name: 's0' } };
  await server.k(['apply', '-f', '-'], { input: JSON.stringify(copy) }); // with its last-applied annotation
  await server.k(['apply', '-f', '-'], { input: JSON.stringify(secret('s0')) });
  assert.equal((await call(admin, 'POST', SECRETS, { ...secret('bad'), data: { password: `${CODED}!` } })).status, 422);
  assertNowhere(server.state);
  await server.restart();
  await readAll(admin, 3);
  assertNowhere(server.state);
  assert.equal(statSync(path.join(server.state, 'pki/secrets.key')).mode & 0o777, 0o600);
});

fleet.it('a backup and an export hold them sealed; what is restored opens with the same key file only', async () => {
  const server = await fleet.server();
  const admin = await credentials(server.kubeconfig);
  await make(admin, 2);
  const dir = await fleet.dir('atoll-sealed');
  assert.equal((await server.atoll(['backup', path.join(dir, 'backup')])).code, 0);
  await server.stop();
  assert.equal((await run(ATOLL, ['store', 'export', path.join(dir, 'export'), '--state', server.state])).code, 0);
  assert.equal((await run(ATOLL, ['store', 'check', '--state', server.state])).code, 0);
  assertNowhere(dir);
  const state = path.join(await fleet.dir('atoll-restored'), 'state');
  const restored = await run(ATOLL, ['restore', path.join(dir, 'backup'), '--state', state]);
  assert.equal(restored.code, 0, restored.err);
  const refused = await run(ATOLL, ['server', '--state', state, '--listen', '127.0.0.1:0']);
  assert.notEqual(refused.code, 0);
  assert.match(refused.err, /sealed with key [0-9a-f]{8}, which the key file .*secrets\.key does not hold: put back the file/);
  assert.ok(!existsSync(path.join(state, 'pki/secrets.key')), 'no new key is made that would hide the loss');
  const again = await fleet.server({ state, args: ['--secrets-key', path.join(server.state, 'pki/secrets.key')] });
  await readAll(await credentials(again.kubeconfig), 2);
});

fleet.it('a key file that is lost, damaged or open to others stops the server with a sentence, and nothing is lost', async () => {
  const server = await fleet.server();
  await make(await credentials(server.kubeconfig), 2);
  await server.stop();
  const file = path.join(server.state, 'pki/secrets.key');
  const good = readFileSync(file);
  const start = () => run(ATOLL, ['server', '--state', server.state, '--listen', '127.0.0.1:0']);
  const refuses = async (pattern) => {
    const r = await start();
    assert.notEqual(r.code, 0);
    assert.match(r.err, pattern);
    assert.doesNotMatch(r.err, new RegExp(CODED));
  };
  rmSync(file);
  await refuses(/which the key file .* does not hold/);
  writeFileSync(file, '00000000 short\n', { mode: 0o600 });
  await refuses(/line 1: it is no key/);
  writeFileSync(file, good.toString().replace(/^([0-9a-f]{8}) .{8}/m, '$1 AAAAAAAA'));
  await refuses(/was changed, or moved/);
  writeFileSync(file, good);
  chmodSync(file, 0o644);
  await refuses(/may be read by others than its owner: chmod 600/);
  chmodSync(file, 0o600);
  await server.start();
  await readAll(await credentials(server.kubeconfig), 2);
});

fleet.it('the key is rotated while clients write; a kill in between loses nothing, and the old key goes', async () => {
  const server = await fleet.server();
  let admin = await credentials(server.kubeconfig);
  await make(admin, 60);
  const before = (await keys(server)).keys;
  assert.equal(before.length, 1);
  const rotated = await server.atoll('secrets rotate-key');
  assert.equal(rotated.code, 0, rotated.err);
  await server.proc.kill('SIGKILL');
  await server.start();
  admin = await credentials(server.kubeconfig);
  await call(admin, 'POST', SECRETS, secret('s60'));
  await eventually('the old key is gone', async () => {
    const k = await keys(server);
    return k.keys.length === 1 && k.keys[0] !== before[0] && !k.sealingAnew;
  });
  await readAll(admin, 61);
  await server.restart();
  await readAll(await credentials(server.kubeconfig), 61);
  assertNowhere(server.state);
});

fleet.it('only administrators see or turn keys', async () => {
  const server = await fleet.server();
  for (const group of ['atoll:editors', 'atoll:viewers']) {
    const as = ['--as', 'x', '--as-group', group];
    await server.kFails(['get', '--raw', '/admin/v1/secrets', ...as], /cannot get path/);
    await server.kFails(['create', '--raw', '/admin/v1/secrets/rotate-key', '-f', '-', ...as], /cannot create path/, { input: '{}' });
  }
});

fleet.it('etcd holds them sealed, for two servers with one key file', async () => {
  const etcd = await Etcd.start(fleet);
  const args = ['--store', `etcd:${etcd.url}`, '--pki', path.join(await fleet.dir('atoll-pki'), 'pki')];
  const [a, b] = await Promise.all([fleet.server({ args }), fleet.server({ args })]);
  await make(await credentials(a.kubeconfig), 2);
  await readAll(await credentials(b.kubeconfig), 2);
  const r = await run('curl', ['-s', `${etcd.url}/v3/kv/range`, '-d', JSON.stringify({ key: 'AA==', range_end: 'AA==' })]);
  const values = JSON.parse(r.out).kvs.map((kv) => Buffer.from(kv.value, 'base64').toString('latin1'));
  assert.ok(values.some((v) => v.startsWith('\x01sealed1')));
  for (const v of values) assert.ok(!v.includes(CODED) && !v.includes(PLAIN));
  assert.equal((await a.atoll('secrets rotate-key')).code, 0);
  const admin = await credentials(b.kubeconfig);
  assert.equal((await call(admin, 'POST', SECRETS, secret('s2'))).status, 201);
  await readAll(await credentials(a.kubeconfig), 3);
  await readAll(admin, 3);
}, { skip: ETCD_MISSING });
