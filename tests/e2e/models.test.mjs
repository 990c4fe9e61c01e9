// A real ONNX model on a real runner: right answers, and clear words for what is wrong.
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { createServer, get } from 'node:http';
import path from 'node:path';
import { after, before } from 'node:test';
import { Cluster, fetchFrom } from './lib/cluster.mjs';
import { eventually, Fleet, ROOT } from './lib/atoll.mjs';

const QUICKSTART = path.join(ROOT, 'examples/quickstart');
const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;
let models;

before(async () => {
  models = await fleet.dir('atoll-models');
  await copyFile(path.join(QUICKSTART, 'models/digits.onnx'), path.join(models, 'digits.onnx'));
  await writeFile(path.join(models, 'junk.onnx'), 'this is no model\n'.repeat(100));
  c = await Cluster.start(fleet, { 'local-1': 'local' }, { agentArgs: ['--models', models] });
});

const digest = async () => `sha256:${(await readFile(path.join(QUICKSTART, 'models/digits.onnx.sha256'), 'utf8')).split(' ')[0]}`;

const served = (name, model) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Deployment',
  metadata: { name, namespace: 'default' },
  spec: { replicas: 1, template: { spec: { runner: 'onnx', model, env: [{ name: 'MARK', value: c.mark }], resources: { cpu: '200m', memory: '256Mi' } } } },
});

// Applies, waits until the instance's status has the reason, checks its message, and deletes.
async function fails(name, model, reason, message) {
  await c.server.apply(served(name, model));
  const i = await eventually(`${name} has reason ${reason}`, async () => {
    const [one] = await c.instances(name);
    return one?.status?.reason === reason && one;
  });
  assert.match(i.status.message, message);
  assert.equal(i.status.ready ?? false, false);
  const d = await eventually('the deployment says so too', async () => {
    const one = await c.get('deployments', name);
    return one.status?.conditions?.some((x) => x.type === 'Ready' && x.status === 'False' && message.test(x.message)) && one;
  });
  assert.equal(d.status.readyReplicas, 0);
  await c.server.k(`delete deployment ${name}`);
  await eventually('its instance goes', async () => (await c.instances(name)).length === 0);
}

it('a model file that is not there', () => fails('missing', { uri: 'file:nowhere.onnx' }, 'ModelNotFound', /nowhere\.onnx/));

it('a model whose digest differs', () => fails('wrong', { uri: 'file:digits.onnx', digest: `sha256:${'0'.repeat(64)}` }, 'ModelDigestMismatch', /sha256|digest/i));

it('a model that is not ONNX', () => fails('junk', { uri: 'file:junk.onnx' }, 'ModelInvalid', /junk|model|ONNX/i));

it('a model whose server answers 404, or is not there', async () => {
  const http = createServer((req, res) => res.writeHead(404).end('no')).listen(0, '127.0.0.1');
  after(() => http.close());
  await new Promise((resolve) => http.once('listening', resolve));
  const port = http.address().port;
  await fails('absent', { uri: `http://127.0.0.1:${port}/m.onnx` }, 'ModelNotFound', /404|m\.onnx/);
  http.close();
  await fails('deaf', { uri: `http://127.0.0.1:${port}/m.onnx` }, 'ModelFetchFailed', /127\.0\.0\.1/);
});

it('a model fetched over HTTP and verified is served; wrong tensors get 400 and are named', async () => {
  const file = await readFile(path.join(QUICKSTART, 'models/digits.onnx'));
  const http = createServer((req, res) => res.writeHead(200, { 'Content-Length': file.length }).end(file)).listen(0, '127.0.0.1');
  after(() => http.close());
  await new Promise((resolve) => http.once('listening', resolve));
  await c.server.apply(served('digits', { uri: `http://127.0.0.1:${http.address().port}/digits.onnx`, digest: await digest() }));
  await c.ready('digits', { timeoutMs: 60_000 });
  const [i] = await c.instances('digits');
  const node = (await c.list('nodes')).find((n) => n.metadata.name === i.spec.nodeName);
  assert.deepEqual(node.status.models, [await digest()]); // placement likes a node that has it already
  const post = async (input) => {
    const r = await fetchFrom(i.status.endpoint, '/v2/models/digits/infer', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ inputs: [input] }) });
    return { status: r.status, body: JSON.parse(r.body) };
  };
  const test = JSON.parse(await readFile(path.join(QUICKSTART, 'data/digits-test.json'), 'utf8')).inputs[0];
  const image = test.data[0];
  const good = { name: test.name, datatype: 'FP32', shape: [1, 64], data: image };
  const right = await post(good);
  assert.equal(right.status, 200);
  assert.equal(right.body.model_name, 'digits');
  for (const [what, input, pattern] of [
    ['shape', { ...good, shape: [1, 63], data: image.slice(1) }, /"image".*63/],
    ['type', { ...good, datatype: 'INT32' }, /"image".*FP32/],
    ['length', { ...good, data: image.slice(1) }, /"image".*63 elements/],
    ['name', { ...good, name: 'picture' }, /picture/],
  ]) {
    const wrong = await post(input);
    assert.equal(wrong.status, 400, what);
    assert.match(wrong.body.error, pattern, what);
  }
  assert.equal((await post(good)).status, 200); // none of it did any harm
  // Gateways on the same machine come by a Unix socket below a folder named after the instance.
  assert.ok(i.status.localEndpoint.endsWith(`/${i.metadata.uid}/runner.sock`), i.status.localEndpoint);
  const local = await new Promise((resolve, reject) => get({ socketPath: i.status.localEndpoint.slice('unix:'.length), path: '/v2/models/digits' }, resolve).on('error', reject));
  assert.equal(local.statusCode, 200);
  assert.equal(local.headers['atoll-mux'], '1');
  local.resume();
});
