// Several models in one process: a Deployment that names more than one, asked for by each name; and what the runner itself says.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, eventually, Fleet, ROOT, run } from './lib/atoll.mjs';
import { Gateway } from './lib/gateway.mjs';
import { call, credentials } from './lib/rest.mjs';

const MODELS = path.join(ROOT, 'tests/models');
const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const double = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 3], data: [1, 2, 3] }] });

it('a runner serves each model under its own name, and counts them apart', async () => {
  const more = JSON.stringify(['b', 'c'].map((name) => ({ name, version: '7', path: path.join(MODELS, 'double.onnx') })));
  const proc = fleet.start('atoll runner', ['runner', 'onnx', '--model', path.join(MODELS, 'double.onnx'), '--name', 'a', '--models', more]);
  const [, url] = await proc.line(/^ready runner (\S+)$/m);
  const post = async (at, body) => {
    const r = await fetch(url + at, { method: 'POST', body });
    return { status: r.status, json: await r.json() };
  };
  const index = (await post('/v2/repository/index', '{}')).json;
  assert.deepEqual(index.map((m) => [m.name, m.version, m.state]), [['a', '', 'READY'], ['b', '7', 'READY'], ['c', '7', 'READY']]);
  for (const name of ['b', 'b', 'a']) {
    const { status, json } = await post(`/v2/models/${name}/infer`, double);
    assert.equal(status, 200);
    assert.deepEqual([json.model_name, json.outputs[0].data], [name, [2, 4, 6]]);
  }
  const stats = async (name) => (await (await fetch(`${url}/v2/models/${name}/stats`)).json()).model_stats[0].inference_count;
  assert.deepEqual([await stats('a'), await stats('b'), await stats('c')], [1, 2, 0]);
  assert.match(await (await fetch(`${url}/metrics`)).text(), /^atoll_runner_rows_total 3$/m);
  assert.equal((await post('/v2/models/d/infer', double)).status, 404);
  assert.equal((await fetch(`${url}/v2/models/c/ready`)).status, 200);
  assert.equal((await fetch(`${url}/v2/models/b/versions/8`)).status, 404);
  for (const [models, code, said] of [['[{"name":"b","path":"/nowhere.onnx"}]', 66, /item 0: \/nowhere.onnx: no such file/], ['{', 2, /--models: a list/], ['[{"path":"/x"}]', 66, /item 0/]]) {
    const bad = await run(ATOLL, ['runner', 'onnx', '--model', path.join(MODELS, 'double.onnx'), '--models', models]);
    assert.equal(bad.code, code);
    assert.match(bad.err, said);
  }
});

it('a Deployment of several models has one process, and gateways find each by its name', async () => {
  const state = await fleet.dir('atoll-several');
  const proc = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--gateway-threads', '2', '--site', 'here']);
  await proc.line(/^ready dev$/m);
  const [, url] = await proc.line(/^gateway\s+(http\S+)$/m);
  const admin = await credentials(path.join(state, 'admin.kubeconfig'));
  const gateway = new Gateway(url, (await readFile(path.join(state, 'inference.token'), 'utf8')).trim(), proc);
  const at = '/apis/atoll.dev/v1/namespaces/default/deployments';
  const uri = `file://${path.join(MODELS, 'double.onnx')}`;
  const made = await call(admin, 'POST', at, {
    apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'all', namespace: 'default' },
    spec: { replicas: 1, template: { spec: { runner: 'onnx', model: { name: 'one', uri }, models: [{ name: 'two', uri }, { name: 'three', uri, version: '5' }], resources: { cpu: '50m', memory: '256Mi' } } } },
  });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  const ask = async (name) => gateway.infer(name, { body: double });
  for (const name of ['one', 'two', 'three']) {
    const answer = await eventually(`${name} answers`, async () => {
      const a = await ask(name);
      return a.status === 200 && JSON.parse(a.body);
    }, { timeoutMs: 20_000 });
    assert.deepEqual([answer.model_name, answer.outputs[0].data], [name, [2, 4, 6]]);
  }
  const instances = async () => (await call(admin, 'GET', '/apis/atoll.dev/v1/instances')).body.items;
  assert.equal((await instances()).length, 1);
  const listed = JSON.parse((await gateway.ask('/v1/models', { method: 'GET' })).body).data.map((m) => m.id).sort();
  assert.deepEqual(listed, ['one', 'three', 'two']);
  // A template without one of them: its name goes with the last copy that has it.
  const r = await call(admin, 'PATCH', `${at}/all`, { spec: { template: { spec: { models: [{ name: 'two', uri }] } } } }, { 'Content-Type': 'application/merge-patch+json' });
  assert.equal(r.status, 200, JSON.stringify(r.body));
  await eventually('three is gone', async () => (await ask('three')).status === 404, { timeoutMs: 20_000 });
  assert.equal((await ask('two')).status, 200);
  assert.equal((await ask('one')).status, 200);
});
