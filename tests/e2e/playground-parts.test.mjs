// What the playground's scripts compute, without a browser: tensors, streams, stages, commands.
import assert from 'node:assert/strict';
import { test as it } from 'node:test';
import { costOf, curlOf, EventSplitter, Gateway, parseServerTiming, retryAfterOf } from '../../console/playground/api.js';
import { explain } from '../../console/playground/explain.js';
import { Measure, money, ms, quantile } from '../../console/playground/measure.js';
import { boxOf, classesIn, classesOf, emptyRequest, netpbmOf, pictureOf, placeOf, rangeOf, resize, shapeFor, softmax, tensorOf } from '../../console/playground/tensor.js';

const input = (shape, datatype = 'FP32') => ({ name: 'x', datatype, shape });

it('which inputs are pictures, and the shape that is sent for them', () => {
  const cases = [
    [[-1, 3, 224, 224], [224, 224, 3, 'nchw'], [1, 3, 224, 224]],
    [[1, 32, 48, 3], [48, 32, 3, 'nhwc'], [1, 32, 48, 3]],
    [[-1, 1, 28, 28], [28, 28, 1, 'nchw'], [1, 1, 28, 28]],
    [[-1, -1, -1, 3], [224, 224, 3, 'nhwc'], [1, 224, 224, 3]],
    [['-1', '3', '-1', '-1'], [224, 224, 3, 'nchw'], [1, 3, 224, 224]],
    [[-1, 28, 28], [28, 28, 1, 'nchw'], [1, 28, 28]],
    [[3, 64, 64], [64, 64, 3, 'nchw'], [3, 64, 64]],
    [[64, 64, 3], [64, 64, 3, 'nhwc'], [64, 64, 3]],
    [[-1, 64], [8, 8, 1, 'nchw'], [1, 64]],
    [[-1, 784], [28, 28, 1, 'nchw'], [1, 784]],
    [[3072], [32, 32, 3, 'nchw'], [3072]],
  ];
  for (const [shape, [width, height, channels, order], sent] of cases) {
    const got = pictureOf(input(shape));
    assert.deepEqual([got.width, got.height, got.channels, got.order], [width, height, channels, order], String(shape));
    assert.deepEqual(shapeFor(input(shape), got), sent, String(shape));
  }
  for (const shape of [[-1, 10], [1], [-1], [], [8, 3, 224, 224], [-1, 7, 5, 5], [1, 3, 1e9, 1e9], ['many'], [-1, -1], null]) assert.equal(pictureOf(input(shape)), null, String(shape));
  assert.equal(pictureOf(input([1, 3, 8, 8], 'BYTES')), null);
});

it('what pixels are, and what classes are called, comes from the model\'s own words', () => {
  const grey = pictureOf(input([-1, 64]));
  assert.equal(rangeOf({ description: 'digits (pixels 0..16)' }, input([-1, 64]), grey), 'sixteen');
  assert.equal(rangeOf({ description: 'values 0 to 255' }, input([-1, 64]), grey), 'byte');
  assert.equal(rangeOf({ properties: { note: '-1..1' } }, input([-1, 64]), grey), 'signed');
  assert.equal(rangeOf({}, input([-1, 64], 'UINT8'), grey), 'byte');
  assert.equal(rangeOf({}, input([1, 3, 224, 224]), pictureOf(input([1, 3, 224, 224]))), 'imagenet');
  assert.equal(rangeOf({}, input([1, 1, 28, 28]), pictureOf(input([1, 1, 28, 28]))), 'unit');
  assert.deepEqual(classesOf({ properties: { names: "{0: 'a', 10: 'c', 2: \"b's\"}" } }), ['a', "b's", 'c']);
  assert.deepEqual(classesOf({ properties: { id2label: '{"0": "x", "1": "y"}' } }), ['x', 'y']);
  assert.deepEqual(classesOf({ properties: { classes: 'cat, dog' } }), ['cat', 'dog']);
  assert.equal(classesOf({ properties: { author: 'me' } }), null);
});

const plain = (width, height, at) => {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) data.set([...at(i % width, Math.floor(i / width)), 255], i * 4);
  return { data, width, height };
};

it('pictures become tensors in the order, scale and size that are asked for', () => {
  const two = plain(2, 1, (x) => (x ? [0, 255, 0] : [255, 0, 51]));
  assert.deepEqual(tensorOf(two, { channels: 3, order: 'nchw' }, 'unit'), [1, 0, 0, 1, 0.2, 0]);
  assert.deepEqual(tensorOf(two, { channels: 3, order: 'nhwc' }, 'byte'), [255, 0, 51, 0, 255, 0]);
  assert.deepEqual(tensorOf(two, { channels: 1, order: 'nchw' }, 'byte', { whole: true }), [82, 150]);
  assert.deepEqual(tensorOf(two, { channels: 3, order: 'nchw' }, 'signed', { invert: true }), [-1, 1, 1, -1, 0.6, 1]);
  assert.ok(Math.abs(tensorOf(two, { channels: 3, order: 'nchw' }, 'imagenet')[0] - (1 - 0.485) / 0.229) < 1e-4);
  const half = plain(4, 4, (x) => (x < 2 ? [0, 0, 0] : [200, 200, 200]));
  assert.deepEqual([...resize(half, 2, 2, placeOf('stretch', 4, 4, 2, 2)).data].filter((v, i) => i % 4 === 0), [0, 200, 0, 200]);
  assert.deepEqual([...resize(half, 1, 1, placeOf('stretch', 4, 4, 1, 1)).data], [100, 100, 100, 255]);
  const wide = placeOf('cover', 40, 20, 10, 10);
  assert.deepEqual([wide.sx, wide.sw, wide.dw], [10, 20, 10]);
  const bars = placeOf('contain', 40, 20, 10, 10);
  assert.deepEqual([bars.dy, bars.dh, bars.dw], [2.5, 5, 10]);
  const dot = plain(10, 10, (x, y) => (x === 3 && y > 1 && y < 8 ? [255, 255, 255] : [0, 0, 0]));
  assert.deepEqual(boxOf(dot), { x: 3, y: 2, w: 1, h: 6 });
  assert.equal(boxOf(plain(4, 4, () => [9, 9, 9])), null);
  const trimmed = resize(dot, 6, 6, placeOf('trim', 10, 10, 6, 6, boxOf(dot)));
  assert.equal(trimmed.data.filter((v, i) => i % 4 === 0 && v > 100).length, 12); // half of two columns each
});

it('Netpbm is read, and what only looks like it is not', () => {
  const bytes = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  assert.deepEqual([...netpbmOf(bytes('P2\n# a comment\n2 1\n16\n0 16\n')).data], [0, 0, 0, 255, 255, 255, 255, 255]);
  assert.deepEqual([...netpbmOf(bytes('P6 1 1 255 \x01\x02\x03')).data], [1, 2, 3, 255]);
  assert.deepEqual([...netpbmOf(bytes('P5 1 1 65535 \xff\xff')).data], [255, 255, 255, 255]);
  for (const text of ['', 'P', 'P5', 'P5 2 2 255 \x01', 'P2 1 1 255 x', 'P5 999999999 999999999 255 ', 'P4 1 1 ', 'GIF89a']) assert.equal(netpbmOf(bytes(text)), null, JSON.stringify(text));
});

it('probabilities are found among outputs, made where there are only scores', () => {
  const output = (name, data, shape = [1, data.length], datatype = 'FP32') => ({ name, datatype, shape, data });
  const found = classesIn([output('label', [3], [1], 'INT64'), output('other', [5, -5]), output('p', [0.1, 0.7, 0.2])]);
  assert.deepEqual([found.name, found.made, found.list.map((c) => c.index)], ['p', false, [1, 2, 0]]);
  const made = classesIn([output('logits', [[1000, 1001]], [1, 2])]);
  assert.ok(made.made && Math.abs(made.list[0].share - 1 / (1 + Math.exp(-1))) < 1e-9);
  for (const none of [null, [], [output('x', [1])], [output('x', [null, 1])], [output('x', ['a', 'b'], [2], 'BYTES')], [output('x', [1, 2, 3, 4], [2, 2])]]) assert.equal(classesIn(none), null);
  assert.ok(Math.abs(softmax([1, 2, 3]).reduce((a, b) => a + b) - 1) < 1e-12);
  assert.deepEqual(emptyRequest({ inputs: [input([-1, 2]), input([1], 'BYTES')] }).inputs.map((i) => i.data), [[0, 0], ['']]);
});

it('streams are split into the same events however they are cut', () => {
  const text = 'data: {"a":1}\n\n: nothing\n\nevent: x\r\ndata: one\r\ndata:two\r\n\r\ndata: [DONE]\n\n';
  for (let size = 1; size <= text.length; size++) {
    const splitter = new EventSplitter();
    const got = [];
    for (let at = 0; at < text.length; at += size) got.push(...splitter.push(text.slice(at, at + size)));
    assert.deepEqual(got, ['{"a":1}', 'one\ntwo', '[DONE]'], `in pieces of ${size}`);
  }
});

it('Server-Timing and times to wait are read as servers write them', () => {
  assert.deepEqual(parseServerTiming('a;dur=1.5;desc="x, \\"y\\"; z", b;DUR=2 ,c'), [{ name: 'a', ms: 1.5, text: 'x, "y"; z' }, { name: 'b', ms: 2, text: '' }, { name: 'c', ms: 0, text: '' }]);
  for (const none of [null, '', ' ', ';dur=1']) assert.deepEqual(parseServerTiming(none), []);
  const wait = (headers) => retryAfterOf(new Headers(headers), Date.parse('2026-01-01T00:00:00Z'));
  assert.deepEqual([wait({}), wait({ 'retry-after': '2' }), wait({ 'retry-after': '2', 'retry-after-ms': '150' }), wait({ 'retry-after': 'Thu, 01 Jan 2026 00:00:05 GMT' }), wait({ 'retry-after': 'soon' })], [null, 2000, 150, 5000, null]);
});

it('stages add up to the whole, whoever told what', () => {
  let at = 0;
  const run = (server, timings, marks) => {
    at = 0;
    const m = new Measure(() => at);
    m.onHead(parseServerTiming(server));
    for (const mark of marks) {
      at = mark;
      m.onPiece();
    }
    Object.assign(m, { timings, usage: { completion_tokens: marks.length } });
    at = 100;
    m.onEnd();
    return m;
  };
  const names = (m) => m.stages().map((s) => s.name).join();
  const sums = (m) => assert.ok(Math.abs(m.stages().reduce((sum, s) => sum + s.ms, 0) - m.total) < 1e-9, JSON.stringify(m.stages()));
  const full = run('gw-queue;dur=5, replica;dur=2', { queue_ms: 10, prompt_ms: 20, predicted_ms: 50, predicted_n: 3 }, [40, 60, 90]);
  assert.equal(names(full), 'Queue,Prompt,Rest,Answer');
  assert.deepEqual([full.toFirst, full.rate, full.gaps], [40, 40, [20, 30]]);
  sums(full);
  for (const m of [run('', null, [40, 90]), run('gw-queue;dur=3', null, [40, 90]), run('gw-queue;dur=1', { prompt_ms: 30, predicted_ms: 40, predicted_n: 9 }, [95]), run('', null, [])]) sums(m);
  assert.equal(names(run('gw-queue;dur=1, queue;dur=2, compute;dur=3', null, [])), 'Queue,Compute,Rest');
  assert.deepEqual(run('', null, [10, 30, 30, 30]).gaps.map((g) => Math.round(g * 10)), [67, 67, 67]); // those that came together share their time
  assert.deepEqual([quantile([], 0.5), quantile([3, 1, 2], 0.5), quantile([1, 2], 1)], [null, 2, 2]);
  assert.deepEqual([ms(null), ms(1.234), ms(12.7), ms(2345)], ['–', '1.23 ms', '13 ms', '2.35 s']);
});

it('money: what an answer says goes before prices, and without either there is none', () => {
  const usage = { prompt_tokens: 1000, completion_tokens: 10 };
  assert.equal(costOf({ ...usage, cost: 0.5 }, { prompt: '1', completion: '1' }), 0.5);
  assert.ok(Math.abs(costOf(usage, { prompt: '0.000000150', completion: '0.000000600', request: '0.001' }) - 0.001156) < 1e-12);
  for (const [u, p] of [[usage, null], [usage, {}], [usage, { prompt: '1' }], [null, { prompt: '1', completion: '1' }], [usage, { prompt: 'x', completion: '1' }]]) assert.equal(costOf(u, p), null);
  assert.deepEqual([money(null), money(0), money(1.5), money(0.000123456)], ['–', '$0', '$1.5000', '$0.000123']);
});

it('commands are safe to paste, and errors say what to do', () => {
  const command = curlOf({ url: "http://h/v1/x?a='b", body: '{"a":"it\'s $HOME `x`"}', stream: true });
  assert.ok(command.startsWith("curl -N -sS 'http://h/v1/x?a='\\''b'"), command);
  assert.ok(command.endsWith("--data-binary '{\"a\":\"it'\\''s $HOME `x`\"}'"), command);
  assert.ok(command.includes('"Authorization: Bearer $ATOLL_API_KEY"'));
  assert.ok(!curlOf({ url: 'http://h/', method: 'GET', withKey: false }).includes('-H'));
  for (const error of [{ status: 401 }, { status: 403 }, { status: 404 }, { status: 400, code: 'context_length_exceeded' }, { status: 413 }, { status: 429, code: 'insufficient_quota' }, { status: 429 }, { status: 500 }, { status: 502 }, { status: 503 }, { status: 504 }, { status: 418 }, { kind: 'network' }, { kind: 'cut' }, { kind: 'protocol' }]) {
    const words = explain({ message: 'm', retryAfterMs: null, ...error });
    assert.ok(words.title.length > 5 && words.todo.length > 20, JSON.stringify(error));
  }
  assert.equal(explain({ status: 429, code: 'insufficient_quota', message: '' }).retry, false);
  assert.match(explain({ status: 503, retryAfterMs: 2500, message: '' }).todo, /in 3 s/);
});

it('what a gateway answers is read with care', async () => {
  const say = (status, body, headers = {}) => new Response(body, { status, headers });
  const at = (answers) => new Gateway('http://h/', () => 'k', async (url) => answers(new URL(url).pathname));
  const listed = await at((p) => (p === '/v1/models' ? say(200, '{"data":[{"id":"b","ready":false},{"id":"a"},{"x":1},null]}') : say(404, ''))).models();
  assert.deepEqual(listed.map((m) => [m.name, m.ready]), [['a', true], ['b', false]]);
  const both = await at((p) => say(200, p === '/v1/models' ? '{"data":[]}' : '[{"name":"t","version":"1","state":"READY"},{"name":"t","version":"2","state":"READY"}]')).models();
  assert.deepEqual(both, [{ name: 't', ready: true, pricing: null, versions: ['1', '2'] }]);
  assert.equal(await at(() => say(404, '{}')).metadata('x'), null);
  assert.equal(await at(() => say(200, '<html>')).metadata('x'), null);
  await assert.rejects(at(() => say(503, '{"error":"starting"}', { 'retry-after': '1', 'x-request-id': 'r1' })).metadata('x'), (e) => e.message === 'starting' && e.retryAfterMs === 1000 && e.requestId === 'r1');
  await assert.rejects(at(() => say(502, '<html>bad</html>')).infer('x', '{}'), (e) => e.status === 502 && e.message === '<html>bad</html>');
  const stream = (text) => at(() => say(200, text, { 'content-type': 'text/event-stream' })).complete('v1/x', '{}', true, () => {});
  await stream('data: {"choices":[{"finish_reason":"stop"}]}\n\n');
  for (const text of ['', 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', 'data: {"error":{"message":"gone"}}\n\n']) await assert.rejects(stream(text), (e) => e.kind === 'cut', text);
  await assert.rejects(stream('data: {\n\n'), (e) => e.kind === 'protocol');
});
