// The playground in a real browser, against `atoll dev` with real models: a digits classifier and a small language model.
import assert from 'node:assert/strict';
import http from 'node:http';
import { existsSync } from 'node:fs';
import { copyFile, readFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { eventually, Fleet, ROOT, run } from './lib/atoll.mjs';
import { browser, noBrowser, pageOf } from './lib/browser.mjs';
import { replica, staticGateway } from './lib/gateway.mjs';
import { call, credentials } from './lib/rest.mjs';

const LIBRARY = process.env.ATOLL_LLAMA ?? path.join(ROOT, 'third_party/llama/lib');
const noLlama = existsSync(path.join(LIBRARY, 'libllama.v0.5.0.so')) ? false : 'libllama is not here: tools/fetch-third-party llama';
const fleet = new Fleet();
const it = (name, fn, skip = noBrowser || noLlama) => fleet.it(name, fn, { skip });
let instance;
let url;
let key;
let dev;
let state;

before(async () => {
  if (noBrowser || noLlama) return;
  state = await fleet.dir('atoll-dev');
  const models = await fleet.dir('atoll-models');
  await copyFile(path.join(ROOT, 'examples/quickstart/models/digits.onnx'), path.join(models, 'digits.onnx'));
  for (const name of ['tiny-llama.gguf', 'double.onnx']) await copyFile(path.join(ROOT, 'tests/models', name), path.join(models, name));
  dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--models', models, '--site', 'here']);
  await dev.line(/^ready dev$/m);
  url = (await readFile(path.join(state, 'gateway'), 'utf8')).trim();
  key = (await readFile(path.join(state, 'inference.token'), 'utf8')).trim();
  const admin = await credentials(path.join(state, 'admin.kubeconfig'));
  const specs = { tiny: { runner: 'llm', model: { name: 'tiny', uri: 'file:tiny-llama.gguf', format: 'gguf' } }, digits: { runner: 'onnx', model: { name: 'digits', uri: 'file:digits.onnx' } }, double: { runner: 'onnx', model: { name: 'double', uri: 'file:double.onnx' } } };
  const prices = { tiny: { inputTokens: '1000', outputTokens: '2000', request: '0.01' }, digits: { request: '0.001' } };
  for (const [name, spec] of Object.entries(specs)) {
    const answer = await call(admin, 'POST', '/apis/atoll.dev/v1/namespaces/default/deployments', { apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name }, spec: { replicas: 1, ...(prices[name] ? { traffic: { price: prices[name] } } : {}), template: { spec: { resources: { cpu: '100m', memory: '512Mi' }, ...spec } } } });
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
  }
  await eventually('all models are ready', async () => {
    const list = await (await fetch(`${url}/v1/models`, { headers: { Authorization: `Bearer ${key}` } })).json();
    return list.data?.length === 3 && list.data.every((m) => m.ready);
  }, { timeoutMs: 60_000 });
  instance = await browser();
});

// A page with the key in it, and a model chosen.
async function open(model, options = {}) {
  const page = await pageOf(instance, { origin: url, ...options });
  await page.goto(`${url}/playground${model ? `#${model}` : ''}`);
  await page.fill('#key', key);
  await page.press('#key', 'Enter');
  await page.waitForSelector('#model option[value=tiny]', { state: 'attached' });
  if (model) await page.waitForSelector({ digits: '#look', tiny: '#talk', double: '#tensors' }[model]);
  return page;
}

const answered = (page, n = 1) => page.waitForFunction((count) => document.querySelectorAll('.turn.assistant:not([aria-busy]) .note:not(:empty)').length >= count, n);
const facts = (page) => page.locator('#facts').innerText();

it('`atoll dev` prints the address, and the page is given to everybody under a strict policy', async () => {
  assert.match(dev.out, new RegExp(`^playground +${url}/playground .*inference\\.token`, 'm'));
  const page = await fetch(`${url}/playground`);
  assert.equal(page.status, 200);
  assert.match(page.headers.get('content-type'), /^text\/html/);
  const policy = page.headers.get('content-security-policy');
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]) assert.ok(policy.includes(part), part);
  assert.doesNotMatch(policy, /unsafe/);
  assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
  const text = await page.text();
  assert.doesNotMatch(text, /<script(?![^>]*src=)|<[^>]+ on[a-z]+=|<[^>]+ style=|(?:src|href)="(?:https?:)?\/\//i);
  for (const name of ['app.js', 'style.css', 'icon.svg']) {
    const part = await fetch(`${url}/playground/${name}`);
    assert.equal(part.status, 200, name);
    assert.equal((await fetch(`${url}/playground/${name}`, { headers: { 'If-None-Match': part.headers.get('etag') } })).status, 304, name);
  }
  assert.equal((await fetch(`${url}/playground`, { method: 'HEAD' })).headers.get('content-length'), String(Buffer.byteLength(text)));
  assert.equal((await fetch(`${url}/playground/`, { redirect: 'manual' })).status, 308);
  assert.equal((await fetch(`${url}/playground`, { method: 'POST', body: '' })).status, 405);
  for (const name of ['nothing.js', '%2e%2e%2fmetrics', '.hidden', 'app.js/', 'index.html%00']) assert.equal((await fetch(`${url}/playground/${name}`)).status, 404, name);
});

it('without a key it asks for one, a wrong one is told, and the right one stays in this tab only', async () => {
  const page = await pageOf(instance, { origin: url });
  await page.goto(`${url}/playground`);
  await page.waitForSelector('#nothing-title:has-text("A key is needed")');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'key');
  await page.fill('#key', 'two words');
  await page.press('#key', 'Enter');
  await page.waitForSelector('#trouble:has-text("This cannot be a key")');
  await page.fill('#key', 'wrong');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#trouble:has-text("The key is not accepted")');
  await page.fill('#key', key);
  await page.press('#key', 'Enter');
  await page.waitForSelector('#model option[value=digits]', { state: 'attached' });
  assert.equal(await page.locator('#trouble').isHidden(), true);
  const kept = await page.evaluate(() => ({ session: JSON.stringify(sessionStorage), local: JSON.stringify(localStorage), cookie: document.cookie, url: location.href, html: document.documentElement.outerHTML }));
  assert.ok(kept.session.includes(key));
  for (const place of ['local', 'cookie', 'url', 'html']) assert.ok(!kept[place].includes(key), place);
  await page.reload();
  await page.waitForSelector('#model option[value=digits]', { state: 'attached' });
  const other = await page.context().newPage();
  await other.goto(`${url}/playground`);
  await other.waitForSelector('#nothing-title:has-text("A key is needed")');
  await page.click('#access summary');
  await page.click('#keyforget');
  await page.waitForSelector('#nothing-title:has-text("A key is needed")');
  assert.doesNotMatch(await page.evaluate(() => JSON.stringify(sessionStorage)), /atoll-playground-key/);
  assert.deepEqual(page.wrong, []);
});

it('a drawn digit becomes the tensor that the model asks for, and its probabilities are shown as bars', async () => {
  const page = await open('digits');
  assert.deepEqual(await page.evaluate(() => ['range', 'size', 'channels'].map((id) => document.getElementById(id).value)), ['sixteen', '8x8', '1']);
  const sent = page.waitForRequest((r) => r.url().endsWith('/v2/models/digits/infer'));
  const box = await page.locator('#pad').boundingBox();
  await page.mouse.move(box.x + box.width * 0.5, box.y + box.height * 0.18);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + box.height * 0.84, { steps: 6 });
  await page.mouse.up();
  const { inputs } = JSON.parse((await sent).postData());
  assert.deepEqual([inputs[0].name, inputs[0].datatype, inputs[0].shape, inputs[0].data.length], ['image', 'FP32', [1, 64], 64]);
  assert.ok(inputs[0].data.every((v) => v >= 0 && v <= 16) && Math.max(...inputs[0].data) > 10);
  await page.waitForSelector('.best strong:has-text("1")');
  assert.equal(await page.locator('.bars li').count(), 10);
  assert.match(await facts(page), /Compute[\s\S]*Total[\s\S]*Cost\s+\$0\.001\s[\s\S]*Replica\s+digits-/);
  assert.deepEqual(page.wrong, []);
});

it('images are uploaded: the held-out scans as they are, and a PNG', async () => {
  const page = await open('digits');
  for (const digit of [0, 3, 7]) {
    await page.setInputFiles('#file', path.join(ROOT, `examples/quickstart/data/digit-${digit}.pgm`));
    await page.waitForSelector(`.best strong:text-is("${digit}")`);
  }
  const png = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 40, height: 40 });
    const g = canvas.getContext('2d');
    g.fillRect(0, 0, 40, 40);
    Object.assign(g, { strokeStyle: '#fff', lineWidth: 7 });
    g.strokeRect(10, 4, 20, 32);
    return canvas.toDataURL('image/png').split(',')[1];
  });
  const sent = page.waitForRequest((r) => r.url().endsWith('/infer'));
  await page.setInputFiles('#file', { name: 'zero.png', mimeType: 'image/png', buffer: Buffer.from(png, 'base64') });
  assert.equal(JSON.parse((await sent).postData()).inputs[0].data.length, 64);
  await page.waitForSelector('.best strong:text-is("0")');
  await page.setInputFiles('#file', { name: 'x.png', mimeType: 'image/png', buffer: Buffer.from('no image') });
  await page.waitForSelector('#trouble:has-text("no image that can be read")');
  assert.deepEqual(page.wrong, []);
});

it('digits are drawn and asked about by keyboard alone, and the answer is spoken', async () => {
  const page = await open('digits');
  await page.focus('#pad');
  for (let n = 0; n < 8; n++) await page.keyboard.press('ArrowUp');
  await page.keyboard.down('Shift');
  for (let n = 0; n < 15; n++) await page.keyboard.press('ArrowDown');
  await page.keyboard.up('Shift');
  await page.waitForSelector('.best strong:text-is("1")');
  await page.waitForFunction(() => /^1, \d+ per cent$/.test(document.getElementById('voice').textContent));
  for (let n = 0; n < 3; n++) await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'classify');
  assert.deepEqual(page.wrong, []);
});

it('a chat streams with its history, and shows tokens, rate and latency by stage', async () => {
  const page = await open('tiny');
  const bodies = [];
  page.on('request', (r) => r.url().endsWith('/v1/chat/completions') && bodies.push(JSON.parse(r.postData())));
  await page.fill('#system', 'be brief');
  await page.fill('#max', '24');
  await page.fill('#seed', '5');
  await page.fill('#stop', 'never\nnot\\nonce');
  await page.fill('#prompt', 'first');
  await page.press('#prompt', 'Enter');
  await answered(page);
  await page.fill('#prompt', 'second\nline');
  await page.press('#prompt', 'Enter');
  await answered(page, 2);
  const shown = await page.locator('.turn.assistant .body').first().textContent();
  assert.deepEqual(bodies[1].messages, [{ role: 'system', content: 'be brief' }, { role: 'user', content: 'first' }, { role: 'assistant', content: shown }, { role: 'user', content: 'second\nline' }]);
  const { messages, ...rest } = bodies[0];
  assert.deepEqual(rest, { model: 'tiny', max_tokens: 24, temperature: 0.7, seed: 5, stop: ['never', 'not\nonce'], stream: true, stream_options: { include_usage: true } });
  const text = await facts(page);
  for (const word of [/tokens\/s/, /first token/, /Queue[^\d]*[\d.]+ m?s/, /Prompt[^\d]*[\d.]+ m?s/, /Answer[^\d]*[\d.]+ m?s/, /Total[^\d]*[\d.]+ m?s/, /24 tokens/, /Between tokens/, /Replica\s+tiny-/, /Site\s+here/]) assert.match(text, word);
  const [, prompt, cost] = /Prompt\s+(\d+) tokens[\s\S]*Cost\s+\$([\d.]+)/.exec(text);
  assert.equal(Number(cost), Number((Number(prompt) * 0.001 + 24 * 0.002 + 0.01).toFixed(4))); // of the Deployment's prices, for a million tokens
  await page.click('#again');
  await page.waitForFunction(() => document.querySelectorAll('.turn.assistant:not([aria-busy]) .note:not(:empty)').length === 2 && !document.body.classList.contains('busy'));
  assert.deepEqual(bodies[2].messages, bodies[1].messages);
  await page.uncheck('#stream');
  await page.fill('#prompt', 'whole');
  await page.press('#prompt', 'Enter');
  await answered(page, 3);
  assert.equal(bodies[3].stream, undefined);
  assert.match(await facts(page), /Queue[\s\S]*Prompt[\s\S]*Answer[\s\S]*24 tokens/);
  await page.click('#fresh');
  assert.equal(await page.locator('.turn').count(), 0);
  assert.deepEqual(page.wrong, []);
});

it('a text is gone on with, by completions', async () => {
  const page = await open('tiny');
  await page.click('.modes input[value=text]');
  await page.fill('#max', '10');
  const sent = page.waitForRequest((r) => r.url().endsWith('/v1/completions'));
  await page.fill('#prompt', 'once upon');
  await page.press('#prompt', 'Enter');
  assert.equal(JSON.parse((await sent).postData()).prompt, 'once upon');
  await answered(page);
  assert.match(await facts(page), /10 tokens/);
});

it('Escape and Stop cancel, what had come stays, and the model computes no further', async () => {
  const page = await open('tiny');
  await page.fill('#max', '480');
  for (const stop of [() => page.keyboard.press('Escape'), () => page.click('#composer [data-go]')]) {
    await page.click('#fresh');
    await page.fill('#prompt', 'go on');
    await page.press('#prompt', 'Enter');
    await page.waitForFunction(() => (document.querySelector('.turn.assistant .body')?.textContent.length ?? 0) > 5);
    await stop();
    await answered(page);
    assert.match(await page.locator('.turn.assistant .note').textContent(), /^cancelled/);
    assert.equal(await page.locator('#composer [data-go]').textContent(), 'Send');
    assert.equal(await page.locator('#trouble').isHidden(), true);
  }
});

it('errors are told with what to do, and a refused text comes back to be mended', async () => {
  const page = await open('tiny');
  const long = 'word '.repeat(900);
  await page.fill('#prompt', long);
  await page.press('#prompt', 'Enter');
  await page.waitForSelector('#trouble:has-text("too long for this model"):has-text("at most 512 tokens")');
  assert.equal(await page.inputValue('#prompt'), long);
  assert.equal(await page.locator('.turn').count(), 0);
  await page.selectOption('#model', 'double');
  await page.waitForSelector('#tensors');
  await page.fill('#body', '{"inputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}');
  await page.click('#infer');
  await page.waitForSelector('#trouble:has-text("The request was refused")');
  await page.click('#template');
  await page.fill('#body', (await page.inputValue('#body')).replace('"data":[0]', '"data":[21]'));
  await page.click('#infer');
  await page.waitForFunction(() => document.getElementById('reply').textContent.includes('[42]'));
  assert.equal(await page.locator('#trouble').isHidden(), true);
  await page.fill('#body', '{');
  await page.click('#infer');
  await page.waitForSelector('#trouble:has-text("no JSON")');
  assert.deepEqual(page.wrong, []);
});

it('the request is copied as curl, without the key, and curl gets an answer by it', async () => {
  const page = await open('double', { permissions: ['clipboard-read', 'clipboard-write'] });
  await page.fill('#body', '{"id": "it\'s", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [4]}]}');
  await page.click('#infer');
  await page.waitForFunction(() => document.getElementById('reply').textContent.includes('[8]'));
  await page.click('#curl');
  await page.waitForSelector('#copied:has-text("Copied")');
  const command = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(!command.includes(key) && command.includes('$ATOLL_API_KEY'), command);
  const done = await run('bash', ['-c', command], { env: { ATOLL_API_KEY: key } });
  assert.equal(JSON.parse(done.out).id, "it's", done.err);
  assert.deepEqual(JSON.parse(done.out).outputs[0].data, [8]);
  const long = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 9000], data: Array(9000).fill(1) }] }); // too long for a command
  await page.fill('#body', long);
  await page.click('#infer');
  await page.waitForFunction(() => document.getElementById('reply').textContent.includes('9000'));
  await page.click('#curl');
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /--data-binary @request\.json$/);
  const [file] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
  assert.equal(await readFile(await file.path(), 'utf8'), long);
  assert.deepEqual(page.wrong, []);
});

it('dark and light follow the system and the switch, and a phone needs no sideways scrolling', async () => {
  const page = await open('tiny', { viewport: { width: 360, height: 740 }, colorScheme: 'dark', isMobile: true, hasTouch: true });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  await page.click('#theme');
  assert.notEqual(await ground(), dark);
  for (const model of ['tiny', 'digits', 'double']) {
    await page.selectOption('#model', model);
    await page.waitForSelector({ digits: '#look', tiny: '#talk', double: '#tensors' }[model]);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), model);
  }
});

it('every field and button has a name, each id is there once, and texts stand out from their ground', async () => {
  const page = await open('tiny');
  for (const theme of ['light', 'dark']) {
    await page.evaluate((t) => (document.documentElement.dataset.theme = t), theme);
    const found = await page.evaluate(() => {
      const wrong = [];
      const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
      ids.filter((id, n) => ids.indexOf(id) !== n).forEach((id) => wrong.push(`twice: ${id}`));
      for (const e of document.querySelectorAll('button, input, select, textarea, canvas[tabindex]')) {
        const name = e.getAttribute('aria-label') ?? (e.labels?.length ? e.labels[0].textContent : e.textContent);
        if (!name.trim()) wrong.push(`no name: ${e.outerHTML.slice(0, 80)}`);
      }
      const light = (text) => text.match(/[\d.]+/g).slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      for (const e of document.querySelectorAll('p, h1, h2, h3, label, legend, button:not(:disabled), summary, dt, dd, th, td, .modes input:not(:disabled) + span')) {
        if (!e.checkVisibility() || !e.textContent.trim()) continue;
        let under = e;
        while (under && /rgba\(0, 0, 0, 0\)/.test(getComputedStyle(under).backgroundColor)) under = under.parentElement;
        const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(under ?? document.body).backgroundColor)].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push(`faint: ${e.tagName} ${e.textContent.trim().slice(0, 30)} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
      }
      return wrong;
    });
    assert.deepEqual(found, [], theme);
  }
});

// A gateway of its own before servers of this process, for what real models do not do on demand.
async function odd(answers, { args = [], models = ['odd'], hash = '' } = {}) {
  const back = await replica((req, res, body) => answers(req, res, body));
  const gateway = await staticGateway(fleet, Object.fromEntries(models.map((name) => [name, [back.endpoint]])), { args });
  const page = await pageOf(instance, { origin: new URL(gateway.url).origin });
  await page.goto(`${gateway.url}/playground${hash}`);
  return { page, gateway, back };
}

const event = (content, more = {}) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: null, ...more }] })}\n\n`;

it('another server\'s stream is read as it comes; prices make a cost; what breaks off is told, and can be asked again', async () => {
  let cut = true;
  const { page, back } = await odd((req, res) => {
    if (req.url !== '/v1/chat/completions') return res.writeHead(404).end('{}');
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    res.write(event('an '));
    res.write(': a comment\n\n');
    res.write(event('<b>answer</b>\n```js\nlet x = "<i>";\n```\n'));
    if (cut) return setTimeout(() => res.destroy(), 50);
    res.write(event('', { finish_reason: 'stop' }));
    res.write(`data: ${JSON.stringify({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 2, cost: 0.0125 } })}\r\n\r\n`);
    return res.end('data: [DONE]\n\n');
  });
  await page.waitForSelector('#talk'); // no key is needed here
  await page.fill('#prompt', 'x');
  await page.press('#prompt', 'Enter');
  await page.waitForSelector('#trouble:has-text("The answer broke off")');
  assert.match(await page.locator('.turn.assistant .body').textContent(), /^an <b>answer<\/b>/); // as text, and what had come
  cut = false;
  await page.click('#trouble button:has-text("Try again")');
  await page.waitForFunction(() => /\$0\.0125/.test(document.getElementById('facts').textContent));
  assert.equal(await page.locator('.turn.assistant pre').textContent(), 'let x = "<i>";');
  assert.equal(await page.locator('.turn').count(), 2);
  assert.equal(await page.locator('#trouble').isHidden(), true);
  assert.equal(back.seen.filter((r) => r.url.includes('chat')).length, 2);
  assert.deepEqual(page.wrong, []);
});

it('an image goes with a chat; limits, a full gateway and one that is away are told apart', async () => {
  let status = 429;
  const bodies = [];
  const { page, gateway } = await odd((req, res, body) => {
    if (!req.url.startsWith('/v1/')) return res.writeHead(404).end('{}');
    bodies.push(JSON.parse(body));
    return res.writeHead(status, { 'Content-Type': 'application/json', 'retry-after-ms': '2500' }).end(JSON.stringify({ error: { message: `said ${status}`, code: null, param: null } }));
  });
  await page.waitForSelector('#talk');
  await page.setInputFiles('#chatfile', { name: 'dot.png', mimeType: 'image/png', buffer: Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==', 'base64') });
  await page.waitForSelector('#attached img');
  await page.fill('#prompt', 'what is it');
  await page.press('#prompt', 'Enter');
  await page.waitForSelector('#trouble:has-text("Too much at once"):has-text("said 429"):has-text("in 3 s")');
  assert.deepEqual(bodies[0].messages[0].content.map((p) => p.type), ['text', 'image_url']);
  assert.match(bodies[0].messages[0].content[1].image_url.url, /^data:image\/png;base64,/);
  for (const [code, words] of [[402, 'budget is spent'], [403, 'may not do this'], [500, 'The model failed']]) {
    status = code;
    await page.click('#again');
    await page.waitForSelector(`#trouble:has-text("${words}"):has-text("said ${code}")`);
  }
  await gateway.proc.kill();
  await page.click('#again');
  await page.waitForSelector('#trouble:has-text("No connection to the gateway")');
  assert.deepEqual(page.wrong, []);
});

it('odd names, lies in metadata and malformed answers do the page no harm', async () => {
  const models = ['org/llama 3', '<img src=x onerror=alert(1)>', 'ünï"\'', 'z'];
  const metadata = [
    { name: 'a', versions: [], platform: 'p', inputs: [{ name: 'x', datatype: 'FP32', shape: ['many'] }], outputs: [] },
    { inputs: [null], outputs: [] },
    { inputs: [{ name: '<b>', datatype: 'FP32', shape: [-1, 3, -1, -1] }], outputs: [], description: '<script>alert(1)</script>', properties: { names: "{0: 'cat', 1: \"dog\"}" } },
    { inputs: 7, outputs: 7 },
  ];
  const { page } = await odd((req, res) => {
    const name = decodeURIComponent(req.url.split('/')[3] ?? '');
    if (req.url.endsWith('/infer')) return res.writeHead(200, { 'Content-Type': 'application/json' }).end('{"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1,3]}]}');
    if (req.url.startsWith('/v2/models/')) return res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(metadata[models.indexOf(name)]));
    return res.writeHead(200, { 'Content-Type': 'text/html' }).end('<h1>not this</h1>');
  }, { models, hash: '#%' });
  await page.waitForFunction((n) => document.querySelectorAll('#model option').length === n, models.length);
  for (const name of models) {
    await page.selectOption('#model', name);
    await page.waitForFunction(() => document.body.dataset.mode && !/Asking/.test(document.getElementById('about').textContent));
  }
  await page.fill('#prompt', 'x'); // the last one has no metadata
  await page.press('#prompt', 'Enter');
  await page.waitForSelector('#trouble:has-text("cannot be read")');
  await page.selectOption('#model', models[2]);
  await page.waitForSelector('#look');
  assert.equal(await page.inputValue('#size'), '224x224');
  await page.setInputFiles('#file', path.join(ROOT, 'examples/quickstart/data/digit-3.pgm'));
  await page.waitForSelector('.best strong:text-is("dog")');
  assert.equal(await page.locator('img[src="x"], b:has-text("<"), script:not([src])').count(), 0);
  assert.deepEqual(page.wrong, []);
});

it('it can be turned off, and a service of that path has it', async () => {
  const back = await replica((req, res) => res.end(`service ${req.url}`));
  const off = await staticGateway(fleet, { odd: [back.endpoint] }, { args: ['--playground', 'off'] });
  assert.equal((await fetch(`${off.url}/playground`)).status, 404);
  assert.equal((await fetch(`${off.url}/playground/app.js`)).status, 404);
  const bad = await run(process.env.ATOLL_BIN ?? path.join(ROOT, 'build/d/atoll'), ['gateway', '--playground', 'maybe', '--static-routes', '/dev/null']);
  assert.notEqual(bad.code, 0);
  assert.match(bad.err, /on or off/);
  const routes = { models: { odd: [{ endpoint: back.endpoint, instance: 'i', site: 's' }] }, services: [{ path: '/playground', model: 'odd', public: true }] };
  const file = await fleet.file('routes.json', JSON.stringify(routes));
  const proc = fleet.start('gateway', ['gateway', '--static-routes', file, '--listen', '127.0.0.1:0', '--threads', '1']);
  const [, theirs] = await proc.line(/^ready gateway (\S+)$/m);
  assert.match(await (await fetch(`${theirs}/playground/app.js`)).text(), /^service /);
}, false);

it('the index of the Open Inference Protocol lists models by version, and timing is told to whoever asks', async () => {
  const auth = { Authorization: `Bearer ${key}` };
  const cards = (await (await fetch(`${url}/v1/models`, { headers: auth })).json()).data;
  assert.deepEqual(cards.find((m) => m.id === 'tiny').pricing, { prompt: '0.001000000000', completion: '0.002000000000', request: '0.010000' });
  assert.equal(cards.find((m) => m.id === 'double').pricing, undefined);
  const index = await (await fetch(`${url}/v2/repository/index`, { method: 'POST', body: '{"ready": true}', headers: auth })).json();
  assert.deepEqual(index.map((m) => [m.name, m.state]).sort(), [['digits', 'READY'], ['double', 'READY'], ['tiny', 'READY']]);
  assert.equal((await fetch(`${url}/v2/repository/index`, { method: 'POST', body: '{}' })).status, 401);
  const body = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 1], data: [1] }] });
  const ask = (headers) => new Promise((resolve, reject) => {
    const req = http.request(`${url}/v2/models/double/infer`, { method: 'POST', headers: { ...auth, ...headers } }, (res) => res.resume().on('end', () => resolve(res.headers['server-timing'])));
    req.on('error', reject).end(body);
  });
  assert.equal(await ask({}), undefined);
  assert.match(await ask({ 'X-Atoll-Timing': '1' }), /queue;dur=[\d.]+.*compute;dur=[\d.]+.*gw-queue;dur=[\d.]+.*replica;dur=[\d.]+/);
});
