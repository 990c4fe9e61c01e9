// Dynamic batching of the ONNX runner, on the real binary: what goes together, what never does, and what one bad request
// does to its neighbours.
import assert from 'node:assert/strict';
import { copyFile, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { ATOLL, Fleet, PLAIN, ROOT, run } from './lib/atoll.mjs';

const MODELS = path.join(ROOT, 'tests/models');
const fleet = new Fleet();
const it = fleet.it.bind(fleet);

it('each committed model is what tools/make-test-models writes', async () => {
  const dir = await fleet.dir('atoll-models');
  const made = await run(path.join(ROOT, 'tools/make-test-models'), [dir]);
  assert.equal(made.code, 0, made.err);
  const names = await readdir(dir);
  assert.deepEqual(names.sort(), (await readdir(MODELS)).sort());
  for (const name of names) assert.ok((await readFile(path.join(dir, name))).equals(await readFile(path.join(MODELS, name))), name);
});

async function runner(model, ...args) {
  const proc = fleet.start('atoll runner', ['runner', 'onnx', '--model', path.isAbsolute(model) ? model : path.join(MODELS, model), ...args]);
  const [, url] = await proc.line(/^ready runner (\S+)$/m);
  const name = path.basename(model, '.onnx');
  const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });
  const infer = (body) =>
    new Promise((resolve, reject) => {
      const data = JSON.stringify(body);
      const req = http.request(`${url}/v2/models/${name}/infer`, { method: 'POST', agent }, (res) => {
        const chunks = [];
        res.on('data', (c) => chunks.push(c)).on('end', () => resolve({ status: res.statusCode, json: JSON.parse(Buffer.concat(chunks)) }));
      });
      req.on('error', reject).end(data);
      infer.last = req;
    });
  const get = async (what) => (await fetch(`${url}/v2/models/${name}/${what}`)).json();
  const metrics = async () => (await fetch(`${url}/metrics`)).text();
  return { proc, url, infer, get, metrics };
}

const tensor = (name, datatype, shape, data, parameters) => ({ inputs: [{ name, datatype, shape, data }], ...(parameters ? { parameters } : {}) });
const value = (metrics, name) => Number(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm').exec(metrics)?.[1] ?? NaN);

it('requests that come together run together, and each gets its own rows back', async () => {
  const { infer, metrics, get } = await runner('double.onnx', '--batch', '16', '--delay', '50ms');
  const answers = await Promise.all(Array.from({ length: 64 }, (_, n) => infer(tensor('x', 'FP32', [1 + (n % 2), 3], Array.from({ length: 3 + 3 * (n % 2) }, (_, k) => n * 10 + k)))));
  answers.forEach(({ status, json }, n) => {
    assert.equal(status, 200);
    assert.deepEqual(json.outputs[0].shape, [1 + (n % 2), 3]);
    assert.deepEqual(json.outputs[0].data, Array.from({ length: 3 + 3 * (n % 2) }, (_, k) => 2 * (n * 10 + k)));
  });
  const text = await metrics();
  assert.equal(value(text, 'atoll_runner_rows_total'), 96);
  assert.ok(value(text, 'atoll_runner_runs_total') <= 24, text);
  const { model_stats: [stats] } = await get('stats');
  assert.equal(stats.inference_count, 96);
  assert.equal(stats.inference_stats.success.count, 64);
  assert.ok(stats.batch_stats.every((b) => b.batch_size <= 16) && stats.batch_stats.some((b) => b.batch_size >= 8), JSON.stringify(stats.batch_stats));
});

it('requests of different shapes never share a run', async () => {
  const { infer, get } = await runner('double.onnx', '--batch', '64', '--delay', '30ms');
  const widths = [1, 2, 3, 5];
  const answers = await Promise.all(Array.from({ length: 40 }, (_, n) => infer(tensor('x', 'FP32', [1, widths[n % 4]], Array(widths[n % 4]).fill(n)))));
  answers.forEach(({ status, json }, n) => {
    assert.equal(status, 200);
    assert.deepEqual(json.outputs[0].data, Array(widths[n % 4]).fill(2 * n));
  });
  const { model_stats: [stats] } = await get('stats');
  assert.ok(stats.batch_stats.every((b) => b.batch_size <= 10), JSON.stringify(stats.batch_stats));
});

it('one bad request in a batch fails alone', async () => {
  const { infer, metrics } = await runner('table.onnx', '--batch', '8', '--delay', '100ms');
  const answers = await Promise.all([0, 1, 2, 99, 3, 0, 1, 2].map((i) => infer(tensor('i', 'INT64', [1], [i]))));
  answers.forEach(({ status, json }, n) => {
    if (n === 3) {
      assert.equal(status, 400);
      assert.match(json.error, /99|bounds|range/);
    } else {
      assert.equal(status, 200, JSON.stringify(json));
      assert.deepEqual(json.outputs[0].data, [[0, 1], [10, 11], [20, 21], 0, [30, 31], [0, 1], [10, 11], [20, 21]][n]);
    }
  });
  assert.equal(value(await metrics(), 'atoll_runner_batches_split_total'), 1);
});

it('NaN and infinity stay in their own rows; wrong shapes and types are refused before they reach a batch', async () => {
  const { url, infer } = await runner('double.onnx', '--batch', '3', '--delay', '200ms');
  const header = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2], parameters: { binary_data_size: 8 } }] });
  const bad = fetch(`${url}/v2/models/double/infer`, { method: 'POST', headers: { 'inference-header-content-length': String(header.length) }, body: Buffer.concat([Buffer.from(header), Buffer.from(new Float32Array([NaN, Infinity]).buffer)]) });
  const [nan, good, none, wrong] = await Promise.all([bad.then((r) => r.json()), infer(tensor('x', 'FP32', [2, 2], [1, 2, 3, 4])), infer(tensor('x', 'FP32', [1], [1])), infer(tensor('x', 'INT8', [1, 1], [1]))]);
  assert.deepEqual(nan.outputs[0].data, [null, null]);
  assert.deepEqual(good.json.outputs[0].data, [2, 4, 6, 8]);
  assert.deepEqual([none.status, wrong.status], [400, 400]);
  assert.equal((await infer(tensor('x', 'FP32', [0, 2], []))).status, 200);
});

it('a batch of strings is one run', async () => {
  const { infer, metrics } = await runner('words.onnx', '--batch', '4', '--delay', '500ms');
  const words = ['', 'ä', 'three', 'x'.repeat(5000)];
  const answers = await Promise.all(words.map((w) => infer(tensor('w', 'BYTES', [1], [w]))));
  assert.deepEqual(answers.map((a) => a.json.outputs[0].data[0]), words);
  assert.equal(value(await metrics(), 'atoll_runner_runs_total'), 1);
});

it('models whose rows depend on each other, or that have one row, are not batched and say why', async () => {
  const mix = await runner('rows-mix.onnx', '--delay', '50ms');
  const rows = await Promise.all([1, 2].map((n) => mix.infer(tensor('x', 'FP32', [1, 3], [n, n, n]))));
  for (const { json } of rows) assert.deepEqual(json.outputs[0].data, [1, 1, 1]);
  assert.match((await mix.get('config')).unbatched_because, /each gives alone/);
  const one = await runner('one-row.onnx', '--delay', '50ms');
  const answers = await Promise.all([1, 2].map((n) => one.infer(tensor('x', 'FP32', [1, 3], [n, n, n]))));
  answers.forEach(({ json }, n) => assert.deepEqual(json.outputs[0].data, Array(3).fill(2 * (n + 1))));
  const config = await one.get('config');
  assert.equal(config.max_batch_size, 0);
  assert.match(config.unbatched_because, /"x" is fixed/);
});

it('settings come from the file beside the model, under --batching, under single options', async () => {
  const dir = await fleet.dir('atoll-model');
  const model = path.join(dir, 'double.onnx');
  await copyFile(path.join(MODELS, 'double.onnx'), model);
  await writeFile(path.join(dir, 'double.batching.yaml'), 'maxBatchSize: 24\npreferredBatchSizes: [4, 8]\nmaxQueueDelay: 3ms\ninstances: 2\n');
  const { get, proc } = await runner(model, '--batching', '{"maxQueueDelay":"7ms","priorityLevels":3}', '--batch', '12');
  const config = await get('config');
  assert.equal(config.max_batch_size, 12);
  assert.deepEqual(config.instance_group, [{ count: 2 }]);
  assert.deepEqual(config.dynamic_batching, { preferred_batch_size: [4, 8], max_queue_delay_microseconds: 7000, priority_levels: 3, default_priority_level: 2 });
  await proc.stop();
  await writeFile(path.join(dir, 'double.batching.yaml'), 'maxBatchSize: none\n');
  const bad = await run(ATOLL, ['runner', 'onnx', '--model', model]);
  assert.equal(bad.code, 2);
  assert.match(bad.err, /double\.batching\.yaml: maxBatchSize must be a number/);
});

it('a full queue and a timeout answer 503, and a timeout may be shortened by the request', async () => {
  const { infer, metrics } = await runner('double.onnx', '--batching', '{maxBatchSize: 8, maxQueueDelay: 300ms, priorityLevels: 2, queue: {maxSize: 2, timeout: 10s, allowTimeoutOverride: true}}');
  const one = (parameters) => infer(tensor('x', 'FP32', [1, 1], [1], parameters));
  const timed = await one({ timeout: 20000 });
  assert.equal(timed.status, 503);
  assert.match(timed.json.error, /timeout/);
  const answers = await Promise.all([one(), one(), one(), one({ priority: 2 }), one({ priority: 9 })]);
  assert.deepEqual(answers.map((a) => a.status).sort(), [200, 200, 200, 400, 503]);
  const text = await metrics();
  assert.equal(value(text, 'atoll_runner_refused_total{reason="queue_full"}'), 1);
  assert.equal(value(text, 'atoll_runner_refused_total{reason="timeout"}'), 1);
});

it('a client that goes away while it waits is taken out of the queue', async () => {
  const { infer, metrics, get } = await runner('double.onnx', '--batch', '8', '--delay', '1s');
  const gone = infer(tensor('x', 'FP32', [1, 1], [1])).catch(() => 'gone');
  const { last } = infer;
  const until = async (n) => {
    for (let text = ''; value(text, 'atoll_runner_waiting') !== n; ) text = await metrics();
  };
  await until(1);
  const stays = infer(tensor('x', 'FP32', [1, 1], [2]));
  await until(2);
  last.destroy();
  assert.equal(await gone, 'gone');
  assert.equal((await stays).status, 200);
  assert.equal((await get('stats')).model_stats[0].inference_count, 1);
});

it('the model file names itself: producer, graph, version and its own words', async () => {
  const { url } = await runner('double.onnx');
  const metadata = await (await fetch(`${url}/v2/models/double`)).json();
  assert.deepEqual(metadata.properties, { producer: 'tools/make-test-models', graph: 'double', model_version: '3', description: 'Twice its input' });
  assert.deepEqual(metadata.inputs, [{ name: 'x', datatype: 'FP32', shape: [-1, -1] }]);
});

it('corrupt, cut-off, empty and unknown models end with status 65 and one sentence', async () => {
  const dir = await fleet.dir('atoll-model');
  const whole = await readFile(path.join(ROOT, 'examples/quickstart/models/digits.onnx'));
  const cases = { 'unknown-operator.onnx': await readFile(path.join(MODELS, 'unknown-operator.onnx')), 'empty.onnx': Buffer.alloc(0), 'cut.onnx': whole.subarray(0, 20000), 'noise.onnx': Buffer.from(whole).fill(0xa5, 100, 4000) };
  for (const [name, data] of Object.entries(cases)) {
    const file = path.join(dir, name);
    await writeFile(file, data);
    const done = await run(ATOLL, ['runner', 'onnx', '--model', file]);
    assert.equal(done.code, 65, `${name}: ${done.err}`);
    assert.match(done.err, new RegExp(`${name}.*\\n.*cannot be served`, 's'));
  }
  const huge = path.join(dir, 'huge.onnx');
  await writeFile(huge, 'x');
  await truncate(huge, 3 * 2 ** 30); // over what the format allows, and sparse
  const done = await run(ATOLL, ['runner', 'onnx', '--model', huge]);
  assert.equal(done.code, 65, done.err);
  const operator = await run(ATOLL, ['runner', 'onnx', '--model', path.join(dir, 'unknown-operator.onnx')]);
  assert.match(operator.err, /Frobnicate/);
});

it('memory that ends is told with a status of its own', async () => {
  const done = await run('bash', ['-c', `ulimit -v 50000; exec ${PLAIN} runner onnx --model ${path.join(ROOT, 'examples/quickstart/models/digits.onnx')}`]);
  assert.equal(done.code, 75, done.err);
  assert.match(done.err, /not enough memory/);
}, { skip: PLAIN ? false : 'no build without the address sanitizer, which reserves more than any limit' });
