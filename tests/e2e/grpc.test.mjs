// The gateway over HTTP/2 and gRPC, by the clients people have: @grpc/grpc-js, Node's http2, curl. Behind it the real
// ONNX runner, and servers that answer what no runner would.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import path from 'node:path';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { Fleet, ROOT, run } from './lib/atoll.mjs';

const QUICKSTART = path.join(ROOT, 'examples/quickstart');
const fleet = new Fleet();
const proto = grpc.loadPackageDefinition(protoLoader.loadSync(path.join(ROOT, 'tests/e2e/lib/oip.proto'), { keepCase: true, longs: Number, defaults: true }));
const held = JSON.parse(await readFile(path.join(QUICKSTART, 'data/digits-test.json'), 'utf8'));
const [{ data: pixels }] = held.inputs;

async function gateway(models, args = [], scheme = 'http') {
  const dir = await fleet.dir('atoll-grpc');
  const file = path.join(dir, 'routes.json');
  await writeFile(file, JSON.stringify({ models }));
  const proc = fleet.start('atoll gateway', ['gateway', '--listen', '127.0.0.1:0', '--static-routes', file, ...args]);
  const [, url] = await proc.line(/^ready gateway (\S+)/m);
  assert.ok(url.startsWith(scheme));
  return { proc, url, addr: url.replace(/^https?:\/\//, '') };
}

async function digits(...args) {
  const runner = fleet.start('atoll runner', ['runner', 'onnx', '--model', path.join(QUICKSTART, 'models/digits.onnx'), '--listen', '127.0.0.1:0']);
  const [, url] = await runner.line(/^ready runner (\S+)$/m);
  const gw = await gateway({ digits: [{ endpoint: url.replace('http://', ''), instance: 'digits-1', site: 'here' }], absent: [] }, args);
  return { ...gw, runner, runnerUrl: url };
}

// A replica that answers as told.
async function replica(answer) {
  const seen = [];
  const server = http.createServer((req, res) => {
    const chunks = [];
    req.on('data', (c) => chunks.push(c));
    req.on('end', () => {
      seen.push({ url: req.url, method: req.method, headers: req.headers, body: Buffer.concat(chunks) });
      answer(req, res);
    });
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  server.unref();
  return { seen, server, endpoint: `127.0.0.1:${server.address().port}` };
}

function client(addr, credentials = grpc.credentials.createInsecure(), options = {}) {
  return new proto.inference.GRPCInferenceService(addr, credentials, options);
}

const call = (c, method, request, metadata = new grpc.Metadata(), options = {}) =>
  new Promise((resolve, reject) => c[method](request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer))));

const fp32 = (values) => Buffer.from(Float32Array.from(values).buffer);
const image = (n) => ({ model_name: 'digits', id: `i${n}`, inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 64] }], raw_input_contents: [fp32(pixels[n])] });
const label = (answer) => {
  const k = answer.outputs.findIndex((o) => o.name === 'label');
  return Number(answer.raw_output_contents[k].readBigInt64LE(0));
};

fleet.it('the six calls of the protocol, by grpc-js', async () => {
  const { addr } = await digits();
  const c = client(addr);
  assert.equal((await call(c, 'ServerLive', {})).live, true);
  assert.equal((await call(c, 'ServerReady', {})).ready, true);
  const server = await call(c, 'ServerMetadata', {});
  assert.equal(server.name, 'atoll');
  assert.deepEqual(server.extensions, ['binary_tensor_data']);
  assert.equal((await call(c, 'ModelReady', { name: 'digits' })).ready, true);
  assert.equal((await call(c, 'ModelReady', { name: 'absent' })).ready, false);
  const model = await call(c, 'ModelMetadata', { name: 'digits' });
  assert.equal(model.name, 'digits');
  assert.deepEqual(model.inputs.map((t) => [t.name, t.datatype, t.shape]), [['image', 'FP32', [-1, 64]]]);
  let right = 0;
  for (let n = 0; n < 50; n++) {
    const answer = await call(c, 'ModelInfer', image(n));
    assert.equal(answer.id, `i${n}`);
    assert.equal(answer.model_name, 'digits');
    right += label(answer) === held.labels[n];
  }
  assert.ok(right >= 48, `${right} of 50`);
  c.close();
});

fleet.it('typed contents and asked outputs give the same as raw ones; many calls share a connection', async () => {
  const { addr, url } = await digits();
  const c = client(addr);
  const typed = (n) => ({ model_name: 'digits', inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 64], contents: { fp32_contents: pixels[n] } }], outputs: [{ name: 'label' }] });
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => call(c, 'ModelInfer', n % 2 ? typed(n % 50) : image(n % 50))));
  for (const [n, answer] of answers.entries()) {
    const rest = await (await fetch(`${url}/v2/models/digits/infer`, { method: 'POST', body: JSON.stringify({ inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 64], data: pixels[n % 50] }] }) })).json();
    assert.equal(label(answer), rest.outputs.find((o) => o.name === 'label').data[0]);
    assert.equal(answer.outputs.length, n % 2 ? 1 : rest.outputs.length);
  }
  c.close();
});

fleet.it('what is wrong has the status that gRPC users expect, and a message that names the field', async () => {
  const { addr } = await digits();
  const c = client(addr);
  const fails = async (method, request, code, message) => {
    const error = await call(c, method, request).then(() => assert.fail(`${method} was answered`), (e) => e);
    assert.equal(error.code, code, error.message);
    assert.match(error.details, message);
  };
  const { INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, UNAVAILABLE } = grpc.status;
  await fails('ModelInfer', { ...image(0), model_name: 'nosuch' }, NOT_FOUND, /no model is called nosuch/);
  await fails('ModelReady', { name: 'nosuch' }, NOT_FOUND, /no model is called nosuch/);
  await fails('ModelInfer', { ...image(0), model_name: '' }, INVALID_ARGUMENT, /model_name/);
  await fails('ModelInfer', { ...image(0), model_name: '..' }, INVALID_ARGUMENT, /model_name/);
  await fails('ModelInfer', { ...image(0), model_name: 'absent' }, UNAVAILABLE, /no replica is ready/);
  await fails('ModelInfer', { ...image(0), raw_input_contents: [Buffer.alloc(255)] }, INVALID_ARGUMENT, /inputs\[image\]: 255 bytes.* 256/);
  await fails('ModelInfer', { ...image(0), raw_input_contents: [] }, INVALID_ARGUMENT, /inputs\[image\]: 0 bytes/);
  await fails('ModelInfer', { ...image(0), raw_input_contents: [fp32(pixels[0]), fp32(pixels[0])] }, INVALID_ARGUMENT, /raw_input_contents: 2/);
  const shaped = (shape) => ({ ...image(0), inputs: [{ name: 'image', datatype: 'FP32', shape }] });
  await fails('ModelInfer', shaped([-1, 64]), INVALID_ARGUMENT, /shape: a negative/);
  await fails('ModelInfer', shaped([2 ** 40, 2 ** 40]), INVALID_ARGUMENT, /shape: too many/);
  await fails('ModelInfer', { ...image(0), inputs: [{ name: 'image', datatype: 'FP33', shape: [1, 64] }] }, INVALID_ARGUMENT, /datatype/);
  await fails('ModelInfer', { ...image(0), inputs: [{ name: 'picture', datatype: 'FP32', shape: [1, 64] }] }, INVALID_ARGUMENT, /picture/);
  await fails('ModelInfer', { model_name: 'digits', inputs: [{ name: 'image', datatype: 'INT8', shape: [1], contents: { int_contents: [200] } }] }, INVALID_ARGUMENT, /no INT8/);
  await fails('ModelInfer', { model_name: 'digits', inputs: [{ name: 'image', datatype: 'FP32', shape: [1], contents: { int_contents: [200] } }] }, INVALID_ARGUMENT, /contents/);
  await fails('NoSuchCall', {}, UNIMPLEMENTED, /not known/);
  c.close();
});

fleet.it('a token is asked for here too, and TLS offers h2', async () => {
  const dir = await fleet.dir('atoll-grpc-tls');
  const made = await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${dir}/key.pem`, '-out', `${dir}/cert.pem`, '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']);
  assert.equal(made.code, 0, made.err);
  await writeFile(`${dir}/tokens`, 'let-me-in\n');
  const { addr, url } = await digits('--tls-cert', `${dir}/cert.pem`, '--tls-key', `${dir}/key.pem`, '--auth-token-file', `${dir}/tokens`);
  const c = client(addr, grpc.credentials.createSsl(await readFile(`${dir}/cert.pem`)));
  const error = await call(c, 'ModelInfer', image(0)).then(() => assert.fail('answered'), (e) => e);
  assert.equal(error.code, grpc.status.UNAUTHENTICATED);
  const metadata = new grpc.Metadata();
  metadata.set('authorization', 'Bearer let-me-in');
  assert.equal(label(await call(c, 'ModelInfer', image(3), metadata)), held.labels[3]);
  c.close();
  const curl = async (...args) => (await run('curl', ['-sS', '--cacert', `${dir}/cert.pem`, '-o', '/dev/null', '-w', '%{http_version} %{http_code}', ...args, `${url}/healthz`]));
  assert.deepEqual(await curl('--http2'), { code: 0, signal: null, out: '2 200', err: '' });
  assert.deepEqual(await curl('--http1.1'), { code: 0, signal: null, out: '1.1 200', err: '' });
});

fleet.it('a deadline of the client ends the call, and a cancelled one reaches the replica', async () => {
  let gone;
  const finished = new Promise((resolve) => (gone = resolve));
  const slow = await replica((req, res) => res.on('close', () => gone(res.writableFinished)));
  const { addr } = await gateway({ slow: [{ endpoint: slow.endpoint, instance: 's', site: 'x' }] });
  const c = client(addr);
  const error = await call(c, 'ModelInfer', { ...image(0), model_name: 'slow' }, new grpc.Metadata(), { deadline: Date.now() + 300 }).then(() => assert.fail('answered'), (e) => e);
  assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
  assert.equal(await finished, false);
  c.close();
});

fleet.it('a replica that knows JSON only, and one that lies, are translated as far as truth allows', async () => {
  let answer;
  const odd = await replica((req, res) => {
    res.writeHead(answer.status ?? 200, { 'content-type': 'application/json', ...answer.headers });
    res.end(answer.body);
  });
  const { addr } = await gateway({ odd: [{ endpoint: odd.endpoint, instance: 'o', site: 'x' }] });
  const c = client(addr);
  const ask = { model_name: 'odd', model_version: '3', id: 'a"b', parameters: { k: { string_param: 'v' }, n: { int64_param: 7 } }, inputs: [{ name: 't', datatype: 'BYTES', shape: [2], contents: { bytes_contents: [Buffer.from('ab'), Buffer.from('')] } }] };
  answer = { body: JSON.stringify({ model_name: 'odd', outputs: [{ name: 'y', datatype: 'INT32', shape: [2, 1], data: [[-5], [6]] }, { name: 'z', datatype: 'BYTES', shape: [1], data: ['hi'] }] }) };
  const got = await call(c, 'ModelInfer', ask);
  assert.deepEqual(got.outputs.map((o) => [o.name, o.datatype, o.shape]), [['y', 'INT32', [2, 1]], ['z', 'BYTES', [1]]]);
  assert.deepEqual([...new Int32Array(Uint8Array.from(got.raw_output_contents[0]).buffer)], [-5, 6]);
  assert.equal(got.raw_output_contents[1].toString('latin1'), '\x02\0\0\0hi');
  const [sent] = odd.seen;
  assert.equal(sent.url, '/v2/models/odd/versions/3/infer');
  const jsonBytes = Number(sent.headers['inference-header-content-length']);
  const json = JSON.parse(sent.body.subarray(0, jsonBytes).toString());
  assert.equal(json.id, 'a"b');
  assert.deepEqual(json.parameters, { k: 'v', n: 7, binary_data_output: true });
  assert.deepEqual(json.inputs, [{ name: 't', datatype: 'BYTES', shape: [2], parameters: { binary_data_size: 10 } }]);
  assert.equal(sent.body.subarray(jsonBytes).toString('latin1'), '\x02\0\0\0ab\0\0\0\0');
  assert.ok(!('grpc-accept-encoding' in sent.headers) && !('te' in sent.headers));

  for (const lie of ['{', '[]', '{"outputs":3}', '{"outputs":[{"name":"y"}]}', '{"outputs":[{"name":"y","datatype":"INT8","shape":[1],"data":[300]}]}', '{"outputs":[{"name":"y","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":99}}]}']) {
    answer = { body: lie };
    const error = await call(c, 'ModelInfer', ask).then(() => assert.fail(lie), (e) => e);
    assert.equal(error.code, grpc.status.UNAVAILABLE, `${lie}: ${error.message}`);
  }
  answer = { body: 'xx', headers: { 'inference-header-content-length': '99999999999999999999' } };
  assert.equal((await call(c, 'ModelInfer', ask).then(() => assert.fail('lie'), (e) => e)).code, grpc.status.UNAVAILABLE);
  answer = { status: 400, body: '{"error":"bad\\nthing: 100%"}' };
  const error = await call(c, 'ModelInfer', ask).then(() => assert.fail('refused'), (e) => e);
  assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
  assert.match(error.details, /bad\nthing: 100%/);
  c.close();
});

// One HTTP/2 connection by hand.
const request = (session, headers, body) =>
  new Promise((resolve, reject) => {
    const stream = session.request(headers);
    const chunks = [];
    let head;
    stream.on('response', (h) => (head = h));
    stream.on('data', (d) => chunks.push(d));
    stream.on('end', () => resolve({ status: head?.[':status'], headers: head, body: Buffer.concat(chunks).toString() }));
    stream.on('error', reject);
    stream.end(body);
  });

fleet.it('REST over HTTP/2: the same answers, large bodies, and malformed gRPC frames', async () => {
  const { url } = await digits();
  const session = http2.connect(url);
  const infer = { ':method': 'POST', ':path': '/v2/models/digits/infer', 'content-type': 'application/json' };
  const good = await request(session, infer, JSON.stringify({ inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 64], data: pixels[1] }] }));
  assert.equal(good.status, 200);
  assert.equal(good.headers['x-atoll-instance'], 'digits-1');
  const many = await request(session, infer, JSON.stringify({ inputs: held.inputs }));
  assert.equal(many.status, 200);
  assert.ok(many.body.length > 20000);
  assert.equal((await request(session, { ':path': '/v2/models/nosuch' })).status, 404);
  assert.equal((await request(session, { ':path': '/v1/models' })).status, 200);
  const raw = async (body, headers = {}) => {
    const answer = await request(session, { ':method': 'POST', ':path': '/inference.GRPCInferenceService/ModelInfer', 'content-type': 'application/grpc', te: 'trailers', ...headers }, body);
    return Number(answer.headers['grpc-status']);
  };
  assert.equal(await raw(Buffer.alloc(0)), 3);
  assert.equal(await raw(Buffer.from([0, 0, 0, 0, 9, 1])), 3);
  assert.equal(await raw(Buffer.from([1, 0, 0, 0, 0])), 12);
  assert.equal(await raw(Buffer.from([0, 0, 0, 0, 2, 0x0b, 0x0c])), 3);
  assert.equal(await raw(Buffer.from([0, 0, 0, 0, 3, 0x0a, 0x7f, 0x41])), 3);
  session.close();
});
