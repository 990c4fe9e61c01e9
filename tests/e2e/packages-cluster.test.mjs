// Packages in a cluster: tags looked up once, one cache per node, credentials, signatures by policy, fetching before rollouts.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before } from 'node:test';
import { ATOLL, eventually, Fleet, ROOT, run } from './lib/atoll.mjs';
import { Cluster, condition } from './lib/cluster.mjs';
import { liar, noRegistry, registry } from './lib/registry.mjs';

const DIGITS = path.join(ROOT, 'examples/quickstart/models/digits.onnx');
const fleet = new Fleet();
const it = (name, fn) => fleet.it(name, fn, { skip: noRegistry });
let c;
let reg;
let store;
let home;

async function model(...args) {
  const a = await run(ATOLL, ['model', ...args], { env: { ATOLL_MODELS: store, HOME: home, DOCKER_CONFIG: home } });
  assert.equal(a.code, 0, a.err);
  return a.out;
}

// A package of digits.onnx with some bytes of its own, pushed to the repository; gives its digest.
async function push(name, tag, bytes = 1000) {
  const dir = path.join(await fleet.dir('atoll-folder'), name);
  await mkdir(dir);
  await copyFile(DIGITS, path.join(dir, 'digits.onnx'));
  await writeFile(path.join(dir, 'own.bin'), randomBytes(bytes));
  await model('init', dir);
  await model('pack', dir, '-t', `${name}:${tag}`);
  return (await model('push', `${name}:${tag}`, `oci://${reg.host}/m/${name}:${tag}`)).match(/sha256:[0-9a-f]{64}/)[0];
}

const served = (name, about, { replicas = 1, strategy } = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Deployment',
  metadata: { name, namespace: 'default' },
  spec: { replicas, ...(strategy ? { strategy } : {}), template: { spec: { runner: 'onnx', model: { name, ...about }, resources: { cpu: '100m', memory: '128Mi' } } } },
});
const models = () => path.join(c.agents.n1.state, 'models');
const gone = async (name) => {
  await c.server.k(`delete deployment ${name}`);
  await eventually(`${name} is gone`, async () => (await c.instances(name)).length === 0);
};
const refused = (name, reason) => eventually(`${name} has reason ${reason}`, async () => {
  const [i] = await c.instances(name);
  return i?.status?.reason === reason && i;
}, { timeoutMs: 60_000 });

before(async () => {
  if (noRegistry) return;
  home = await fleet.dir('atoll-home');
  store = await fleet.dir('atoll-store');
  reg = await registry(fleet);
  c = await Cluster.start(fleet, { n1: 'one' }, { agentArgs: ['--model-cache', '400k'] });
});

it('a tag is looked up once: all copies, later ones too, have what it stood for; they share the file', async () => {
  const first = await push('tagged', 'stable');
  const uri = `oci://${reg.host}/m/tagged:stable`;
  await c.server.apply(served('tagged', { uri }, { replicas: 2 }));
  const d = await c.ready('tagged', { timeoutMs: 60_000 });
  assert.equal(d.status.model.digest, first);
  for (const i of await c.instances('tagged')) assert.equal(i.status.model.digest, first);
  await push('tagged', 'stable');
  await c.patch('deployments', 'tagged', { spec: { replicas: 3 } });
  await c.ready('tagged', { timeoutMs: 60_000 });
  const all = await c.instances('tagged');
  assert.deepEqual(new Set(all.map((i) => i.status.model.digest)), new Set([first]));
  const folder = path.join(models(), 'packages', first.slice(7));
  const file = await stat(path.join(folder, 'digits.onnx'));
  assert.equal(file.nlink, 2, 'the blob and the package are one file');
  assert.deepEqual((await readdir(path.join(models(), 'packages'))).length, 1);
  await gone('tagged');
});

it('by digest, without the registry: what is in the cache is enough', async () => {
  const digest = await push('pinned', '1');
  const l = await liar(reg.host, (req, res, forward) => forward());
  const uri = `oci://${l.host}/m/pinned@${digest}`;
  await c.server.apply(served('pinned', { uri }));
  await c.ready('pinned', { timeoutMs: 60_000 });
  await l.close();
  const [before] = await c.instances('pinned');
  await c.server.k(`delete instance ${before.metadata.name}`);
  await eventually('another copy serves', async () => {
    const list = await c.instances('pinned');
    return list.length === 1 && list[0].metadata.uid !== before.metadata.uid && list[0].status.ready;
  }, { timeoutMs: 60_000 });
  await gone('pinned');
});

it('a registry that wants credentials gets those of a Secret', async () => {
  await push('secret', '1');
  const l = await liar(reg.host, (req, res, forward) => (req.headers.authorization === `Basic ${Buffer.from('ada:secret').toString('base64')}` ? forward() : res.writeHead(401, { 'WWW-Authenticate': 'Basic realm="r"' }).end()));
  after(() => l.close());
  const uri = `oci://${l.host}/m/secret:1`;
  await c.server.apply(served('secret', { uri }));
  assert.match((await refused('secret', 'ModelFetchFailed')).status.message, /401.*pullSecret/);
  await gone('secret');
  await c.server.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'pull', namespace: 'default' }, type: 'kubernetes.io/dockerconfigjson', stringData: { '.dockerconfigjson': JSON.stringify({ auths: { [l.host]: { username: 'ada', password: 'secret' } } }) } });
  await c.server.apply(served('secret', { uri, pullSecret: 'pull' }));
  await c.ready('secret', { timeoutMs: 60_000 });
  await gone('secret');
});

it('what a policy wants signed is refused unsigned, by another key, and as a plain file', async () => {
  const keys = await fleet.dir('atoll-keys');
  for (const k of ['a', 'b']) {
    execFileSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', `${keys}/${k}.key`]);
    execFileSync('openssl', ['pkey', '-in', `${keys}/${k}.key`, '-pubout', '-out', `${keys}/${k}.pub`]);
  }
  const digest = await push('signed', '1');
  const uri = `oci://${reg.host}/m/signed:1`;
  await c.server.apply({ apiVersion: 'atoll.dev/v1', kind: 'Policy', metadata: { name: 'signed' }, spec: { signatures: [{ name: 'prod', namespaces: ['default'], keys: [await readFile(`${keys}/a.pub`, 'utf8')] }] } });
  await c.server.apply(served('signed', { uri }));
  assert.match((await refused('signed', 'ModelRefused')).status.message, /no signature.*rule prod/);
  await assert.rejects(stat(path.join(models(), 'packages', digest.slice(7))), 'it is not even fetched');
  await model('sign', uri, '--key', `${keys}/b.key`);
  await gone('signed');
  await c.server.apply(served('signed', { uri }));
  assert.match((await refused('signed', 'ModelRefused')).status.message, /prod.*trusted key/);
  await model('sign', uri, '--key', `${keys}/a.key`);
  const d = await c.ready('signed', { timeoutMs: 90_000 });
  assert.equal(d.status.model.digest, digest);
  const [i] = await c.instances('signed');
  assert.match(i.status.model.signedBy, /^sha256:[0-9a-f]{64}$/);
  await gone('signed');
  await c.server.apply(served('plain', { uri: `file://${DIGITS}` }));
  assert.match((await refused('plain', 'ModelRefused')).status.message, /no package/);
  await gone('plain');
  await c.server.k('delete policy signed');
});

it('the new model is on the node before an old copy goes; a package that cannot be fetched holds the rollout', async () => {
  await push('rolled', '1');
  const second = await push('rolled', '2');
  const strategy = { maxSurge: 0, maxUnavailable: 1 };
  await c.server.apply(served('rolled', { uri: `oci://${reg.host}/m/rolled:1` }, { strategy }));
  await c.ready('rolled', { timeoutMs: 60_000 });
  const [old] = await c.instances('rolled');
  await c.server.apply(served('rolled', { uri: `oci://${reg.host}/m/rolled:none` }, { strategy }));
  await eventually('it says why it waits', async () => {
    const d = await c.get('deployments', 'rolled');
    return d.status.conditions.some((x) => x.type === 'Progressing' && x.reason === 'FetchingModel' && /404/.test(x.message));
  });
  let list = await c.instances('rolled');
  assert.deepEqual(list.map((i) => [i.metadata.uid, i.status.ready]), [[old.metadata.uid, true]], 'the old copy serves on');
  await c.server.apply(served('rolled', { uri: `oci://${reg.host}/m/rolled:2` }, { strategy }));
  const d = await eventually('the new copy serves', async () => {
    const one = await c.get('deployments', 'rolled');
    return one.status.model?.digest === second && condition(one, 'Ready') === 'True' && one;
  }, { timeoutMs: 60_000 });
  assert.equal(d.status.model.uri, `oci://${reg.host}/m/rolled:2`);
  list = await c.instances('rolled');
  assert.equal(list.length, 1);
  assert.notEqual(list[0].metadata.uid, old.metadata.uid);
  await gone('rolled');
});

it('the cache keeps its limit: what nobody uses goes, what is used stays, what cannot fit is refused', async () => {
  const used = await push('used', '1', 100_000);
  const idle = await push('idle', '1', 100_000);
  await push('next', '1', 250_000);
  await push('huge', '1', 900_000);
  const uri = (name) => `oci://${reg.host}/m/${name}:1`;
  await c.server.apply(served('used', { uri: uri('used') }));
  await c.ready('used', { timeoutMs: 60_000 });
  await c.server.apply(served('idle', { uri: uri('idle') }));
  await c.ready('idle', { timeoutMs: 60_000 });
  await gone('idle');
  await c.server.apply(served('next', { uri: uri('next') }));
  await c.ready('next', { timeoutMs: 60_000 });
  await stat(path.join(models(), 'packages', used.slice(7)));
  await assert.rejects(stat(path.join(models(), 'packages', idle.slice(7))));
  await c.server.apply(served('huge', { uri: uri('huge') }));
  assert.match((await refused('huge', 'ModelFetchFailed')).status.message, /model cache of this node holds 400000 at most/);
  for (const name of ['huge', 'used', 'next']) await gone(name);
});

it('an agent that is killed -9 in the middle of a fetch goes on with it; a fetch that nobody wants any more stops', async () => {
  const digest = await push('cut', '1', 200_000);
  let hold = true;
  let sent = 0;
  const l = await liar(reg.host, (req, res, forward) => forward((a) => {
    if (a.body.length < 100_000) return a;
    if (!hold) {
      sent += a.body.length;
      return a;
    }
    sent += 100_000;
    res.writeHead(a.status, a.headers);
    res.write(a.body.subarray(0, 100_000));
    return undefined; // and says no more
  }));
  after(() => l.close());
  const half = async () => {
    const parts = path.join(models(), 'parts');
    for (const name of await readdir(parts)) if ((await stat(path.join(parts, name))).size === 100_000) return true;
    return false;
  };
  await c.server.apply(served('cut', { uri: `oci://${l.host}/m/cut:1` }));
  await eventually('half of it is here', half);
  await c.killAgent('n1');
  hold = false;
  await c.startAgent('n1');
  await c.ready('cut', { timeoutMs: 60_000 });
  assert.equal(sent, 200_000, 'not a byte twice');
  await gone('cut');
  await rm(path.join(models(), 'packages', digest.slice(7)), { recursive: true });
  for (const name of await readdir(path.join(models(), 'sha256'))) await rm(path.join(models(), 'sha256', name));
  hold = true;
  await c.server.apply(served('cut', { uri: `oci://${l.host}/m/cut:1` }));
  await eventually('half of it is here again', half);
  await gone('cut');
});

it('air-gapped: a layout in a folder and a tar serve as well', async () => {
  const dir = await fleet.dir('atoll-layout');
  await push('air', '1');
  await model('push', 'air:1', `oci-layout:${dir}/l:air`);
  await model('save', 'air:1', `${dir}/air.tar`);
  await c.server.apply(served('air', { uri: `oci-layout://${dir}/l:air` }));
  await c.ready('air', { timeoutMs: 60_000 });
  await gone('air');
  await rm(path.join(models(), 'packages'), { recursive: true });
  await mkdir(path.join(models(), 'packages'));
  await c.server.apply(served('tar', { uri: `oci-archive:${dir}/air.tar` }));
  await c.ready('tar', { timeoutMs: 60_000 });
  await gone('tar');
});

it('atoll model run --join makes this machine a node of the cluster that serves, and leaves nothing', async () => {
  const dir = path.join(await fleet.dir('atoll-folder'), 'mine');
  await mkdir(dir);
  await copyFile(DIGITS, path.join(dir, 'digits.onnx'));
  const proc = fleet.start('join', ['model', 'run', dir, '--join', 'kubeconfig', '--site', 'one', '--kubeconfig', c.server.kubeconfig], { env: { ATOLL_MODELS: store } });
  const [, node] = await proc.line(/^ready agent (local-\S+)$/m);
  const i = await eventually('it serves', async () => (await c.instances(node)).find((x) => x.status?.ready), { timeoutMs: 60_000 });
  assert.equal(i.spec.nodeName, node);
  const meta = await (await fetch(`http://${i.status.endpoint}/v2/models/mine`)).json();
  assert.equal(meta.inputs[0].name, 'image');
  proc.child.kill('SIGINT');
  assert.equal((await proc.exited).code, 0, proc.log());
  assert.equal((await c.instances(node)).length, 0);
  assert.equal((await c.list('deployments')).filter((d) => d.metadata.name === node).length, 0);
  assert.equal((await c.list('nodes')).filter((n) => n.metadata.name === node).length, 0);
});
