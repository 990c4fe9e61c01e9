// `atoll runner onnx` on its own: the real binary, the real model, and what users get wrong with it.
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { ATOLL, Fleet, ROOT, run } from './lib/atoll.mjs';

const QUICKSTART = path.join(ROOT, 'examples/quickstart');
const MODEL = path.join(QUICKSTART, 'models/digits.onnx');
const fleet = new Fleet();

async function runner(...args) {
  const proc = fleet.start('atoll runner', ['runner', 'onnx', '--model', MODEL, ...args]);
  const [, url] = await proc.line(/^ready runner (\S+)$/m);
  return { proc, url };
}

async function post(url, body) {
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: typeof body === 'string' ? body : JSON.stringify(body) });
  return { status: answer.status, json: await answer.json() };
}

const held = JSON.parse(await readFile(path.join(QUICKSTART, 'data/digits-test.json'), 'utf8'));
const [{ data: pixels }] = held.inputs;
const image = (n) => ({ id: `i${n}`, inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 64], data: pixels[n] }] });

fleet.it('held-out digits are told apart, one request each and all in one', async () => {
  const { url, proc } = await runner('--listen', '127.0.0.1:0', '--threads', '2');
  let right = 0;
  for (let n = 0; n < 100; n++) {
    const { status, json } = await post(`${url}/v2/models/digits/infer`, image(n));
    assert.equal(status, 200, JSON.stringify(json));
    assert.equal(json.id, `i${n}`);
    right += json.outputs.find((o) => o.name === 'label').data[0] === held.labels[n];
  }
  assert.ok(right >= 97, `${right} of 100`);
  const { json } = await post(`${url}/v2/models/digits/infer`, { inputs: held.inputs, outputs: [{ name: 'label' }] });
  assert.equal(json.outputs.length, 1);
  const all = json.outputs[0].data.filter((label, n) => label === held.labels[n]).length;
  assert.ok(all >= held.labels.length * 0.97, `${all} of ${held.labels.length}`);
  assert.deepEqual(await proc.stop(), { code: 0, signal: null });
});

fleet.it('nothing is kept in the home folder: the telemetry of ONNX Runtime is off', async () => {
  const home = await fleet.dir('atoll-home');
  const proc = fleet.start('atoll runner', ['runner', 'onnx', '--model', MODEL], { env: { HOME: home, XDG_CACHE_HOME: '' } });
  const [, url] = await proc.line(/^ready runner (\S+)$/m);
  assert.equal((await post(`${url}/v2/models/digits/infer`, image(0))).status, 200);
  assert.deepEqual(await proc.stop(), { code: 0, signal: null });
  assert.deepEqual(await readdir(home), []);
});

fleet.it('metrics pass promtool check metrics', async () => {
  const { url } = await runner();
  await post(`${url}/v2/models/digits/infer`, image(0));
  await post(`${url}/v2/models/digits/infer`, '{');
  const text = await (await fetch(`${url}/metrics`)).text();
  assert.match(text, /^atoll_runner_requests_total\{code="400"\} 1$/m);
  const checked = await run('promtool', ['check', 'metrics'], { input: text });
  assert.equal(checked.code, 0, checked.out + checked.err);
  assert.equal(checked.err.trim(), '');
});

fleet.it('a Unix socket serves too', async () => {
  const socketPath = path.join(await fleet.dir('atoll-runner'), 'r.sock');
  await runner('--listen', `unix:${socketPath}`);
  const body = await new Promise((resolve, reject) => {
    http.get({ socketPath, path: '/v2/models/digits' }, (answer) => {
      let text = '';
      answer.on('data', (d) => (text += d)).on('end', () => resolve(text));
    }).on('error', reject);
  });
  assert.equal(JSON.parse(body).platform, 'onnxruntime_onnx');
});

fleet.it('a tensor of the wrong shape, type or length is refused by name', async () => {
  const { url } = await runner();
  const infer = async (input) => {
    const { status, json } = await post(`${url}/v2/models/digits/infer`, { inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 64], data: pixels[0], ...input }] });
    assert.equal(status, 400);
    assert.match(json.error, /"image"/);
    return json.error;
  };
  assert.match(await infer({ shape: [1, 63] }), /\[1,63\].*\[-1,64\]/);
  assert.match(await infer({ datatype: 'INT64' }), /INT64.*FP32/);
  assert.match(await infer({ data: [1, 2, 3] }), /3 elements.*needs 64/);
  assert.match(await infer({ data: pixels[0].map(String) }), /data\[0\] is a string.*numbers/);
  const unknown = await post(`${url}/v2/models/cats/infer`, image(0));
  assert.equal(unknown.status, 404);
  assert.match(unknown.json.error, /"cats".*"digits"/);
});

fleet.it('a file that is not ONNX, a missing file and a bad option end with their own status', async () => {
  const start = (args, env) => run(ATOLL, ['runner', 'onnx', ...args], { env });
  const text = await fleet.file('model.onnx', 'not a model\n');
  let done = await start(['--model', text]);
  assert.equal(done.code, 65);
  assert.match(done.err, /model\.onnx.*\n.*cannot be served/);
  done = await start(['--model', '/nonexistent/model.onnx']);
  assert.equal(done.code, 66);
  assert.match(done.err, /nonexistent\/model\.onnx: no such file/);
  done = await start(['--model', MODEL], { ATOLL_ONNXRUNTIME: '/nonexistent/libonnxruntime.so.1' });
  assert.equal(done.code, 69);
  assert.match(done.err, /run `make`/);
  done = await start(['--modle', MODEL]);
  assert.equal(done.code, 2);
  assert.match(done.err, /unknown option --modle\nusage:/);
  for (const one of [done]) assert.equal(one.out, '');
});

fleet.it('a port that is taken is named', async () => {
  const { url } = await runner();
  const addr = new URL(url).host;
  const done = await run(ATOLL, ['runner', 'onnx', '--model', MODEL, '--listen', addr]);
  assert.equal(done.code, 71);
  assert.ok(done.err.includes(addr), done.err);
});
