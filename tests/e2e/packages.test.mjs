// Models as packages on the command line: a stock registry, skopeo, and registries that are down, slow, or lie.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmod, copyFile, cp, mkdir, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before } from 'node:test';
import { ATOLL, eventually, Fleet, ROOT, run } from './lib/atoll.mjs';
import { liar, noRegistry, noSkopeo, registry } from './lib/registry.mjs';

const DIGITS = path.join(ROOT, 'examples/quickstart/models/digits.onnx');
const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let base;
let folder;
let store;
let reg;

const sha = (data) => `sha256:${createHash('sha256').update(data).digest('hex')}`;

// atoll model ..., against its own store.
async function model(args, { in: at = store, ok = true, input, env = {} } = {}) {
  const a = await run(ATOLL, ['model', ...args], { input, env: { ATOLL_MODELS: at, DOCKER_CONFIG: base, HOME: base, ...env } });
  if (ok) assert.equal(a.code, 0, `${args.join(' ')}: ${a.err}`);
  else assert.notEqual(a.code, 0, `${args.join(' ')} should fail: ${a.out}`);
  assert.doesNotMatch(a.err, /Sanitizer/);
  return a;
}
const digestOf = (text) => text.match(/sha256:[0-9a-f]{64}/)[0];
const newStore = () => fleet.dir('atoll-store');
const blobFile = (at, digest) => path.join(at, 'blobs/sha256', digest.slice(7));

async function modelFolder(extra = {}) {
  const dir = path.join(await fleet.dir('atoll-folder'), 'digits');
  await mkdir(dir);
  await copyFile(DIGITS, path.join(dir, 'digits.onnx'));
  for (const [name, data] of Object.entries(extra)) {
    await mkdir(path.dirname(path.join(dir, name)), { recursive: true });
    await writeFile(path.join(dir, name), data);
  }
  return dir;
}

before(async () => {
  base = await fleet.dir('atoll-home');
  store = await newStore();
  folder = await modelFolder({ 'README.md': 'digits\n', 'labels/en.txt': 'zero\n' });
  if (!noRegistry) reg = await registry(fleet);
});

it('init reads inputs and outputs out of the model, pack makes the same digest each time', async () => {
  await model(['init', folder, '--licence', 'MIT', '--data-class', 'public']);
  const text = await readFile(path.join(folder, 'model.yaml'), 'utf8');
  for (const what of ['name: digits', 'format: onnx', 'runner: onnx', 'licence: MIT', 'dataClass: public', 'name: image', 'datatype: FP32', 'name: probabilities', sha(await readFile(DIGITS))]) {
    assert.ok(text.includes(what), `${what} in\n${text}`);
  }
  await model(['init', folder], { ok: false });
  const first = digestOf((await model(['pack', folder])).out);
  const other = await newStore();
  assert.equal(digestOf((await model(['pack', folder], { in: other })).out), first);
  const seen = JSON.parse((await model(['inspect', 'digits:1', '-o', 'json'])).out);
  assert.equal(seen.artifactType, 'application/vnd.cncf.model.manifest.v1+json');
  assert.deepEqual(seen.layers.map((l) => l.path).sort(), ['README.md', 'digits.onnx', 'labels/en.txt', 'model.yaml']);
  assert.equal(seen.model.signature.inputs[0].name, 'image');
});

it('a GGUF file tells its architecture and its context', async () => {
  const dir = path.join(await fleet.dir('atoll-gguf'), 'Tiny_Llama');
  await mkdir(dir);
  await copyFile(path.join(ROOT, 'tests/models/tiny-llama.gguf'), path.join(dir, 'tiny.gguf'));
  await model(['init', dir]);
  const text = await readFile(path.join(dir, 'model.yaml'), 'utf8');
  assert.match(text, /name: tiny-llama/);
  assert.match(text, /runner: llm/);
  assert.match(text, /architecture: llama/);
  assert.match(text, /contextTokens: \d+/);
});

it('corrupt and truncated model files, odd names and wrong digests are refused with a sentence', async () => {
  const whole = await readFile(DIGITS);
  const cases = [
    ['cut.onnx', whole.subarray(0, whole.length - 1000), /cut off|damaged/],
    ['junk.onnx', randomBytes(5000), /ONNX|damaged|cut off|known type/],
    ['empty.onnx', Buffer.alloc(0), /ONNX|damaged/],
    ['cut.gguf', (await readFile(path.join(ROOT, 'tests/models/tiny-llama.gguf'))).subarray(0, 3000), /cut off|goes on|short|truncated|past/i],
    ['no.gguf', Buffer.from('hello'), /GGUF/],
  ];
  for (const [name, data, pattern] of cases) {
    const dir = await fleet.dir('atoll-bad');
    await writeFile(path.join(dir, name), data);
    const a = await model(['init', dir], { ok: false });
    assert.match(a.err, pattern, name);
    assert.deepEqual(await readdir(dir), [name], 'and nothing is written');
  }
  const dir = await modelFolder();
  await model(['init', dir]);
  await writeFile(path.join(dir, 'digits.onnx'), Buffer.concat([whole, Buffer.from([0])]));
  assert.match((await model(['pack', dir], { ok: false })).err, /digest.*init --force/s);
  await symlink('/etc/passwd', path.join(dir, 'secret.txt'));
  assert.match((await model(['init', dir, '--force'], { ok: false })).err, /secret\.txt.*neither/);
  await rm(path.join(dir, 'secret.txt'));
  await writeFile(path.join(dir, 'model.yaml'), 'name: x\nformat: onnx\nmodel: ../../etc/passwd\n');
  assert.match((await model(['pack', dir], { ok: false })).err, /model.*leaves its folder/s);
});

it('a file of many gigabytes that cannot be a model is refused by its head, before a byte is hashed', async () => {
  const whole = await readFile(path.join(ROOT, 'tests/models/tiny-llama.gguf'));
  const claims = Buffer.concat([Buffer.from('GGUF'), Buffer.from([3, 0, 0, 0]), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Buffer.alloc(8, 0x7f)]);
  for (const [name, head, pattern] of [
    ['zeros.gguf', Buffer.alloc(8), /no GGUF/], ['longer.gguf', whole, /the file goes on to/], ['claims.gguf', claims, /claims|cut off/],
    ['zeros.onnx', Buffer.alloc(8), /ONNX/], ['longer.onnx', await readFile(DIGITS), /2 GiB at most/],
  ]) {
    const dir = await fleet.dir('atoll-huge');
    await writeFile(path.join(dir, name), head);
    await truncate(path.join(dir, name), 2 ** 40); // holes: hashing it would take an hour
    assert.match((await model(['init', dir], { ok: false })).err, pattern, name);
    const a = await run(ATOLL, ['runner', name.endsWith('gguf') ? 'llm' : 'onnx', '--model', path.join(dir, name)]);
    assert.equal(a.code, 65, `${name}: ${a.err}`);
    await rm(dir, { recursive: true });
  }
});

it('push and pull through a stock registry; skopeo copies both ways', async () => {
  const where = `oci://${reg.host}/team/digits:1`;
  await model(['push', 'digits:1', where]);
  const other = await newStore();
  const to = path.join(await fleet.dir('atoll-to'), 'copy');
  const a = await model(['pull', where, '--to', to], { in: other });
  assert.deepEqual(await readFile(path.join(to, 'digits.onnx')), await readFile(DIGITS));
  assert.equal(await readFile(path.join(to, 'labels/en.txt'), 'utf8'), 'zero\n');
  assert.match((await model(['pull', where, '--to', to], { in: other, ok: false })).err, /there already/);
  assert.match((await model(['inspect', where], { in: await newStore() })).out, /image FP32 \[-1,64\]/);
  assert.match((await model(['pull', `oci://${reg.host}/team/digits:none`], { ok: false })).err, /404/);
  assert.match((await model(['pull', `oci://${reg.host}/team/digits@sha256:${'0'.repeat(64)}`], { ok: false })).err, /404/);
  if (noSkopeo) return;
  const layout = await fleet.dir('atoll-skopeo');
  const skopeo = (...args) => execFileSync('skopeo', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const digest = digestOf(a.out);
  assert.equal(sha(skopeo('inspect', '--raw', '--tls-verify=false', `docker://${reg.host}/team/digits:1`)), digest);
  skopeo('copy', '--src-tls-verify=false', `docker://${reg.host}/team/digits:1`, `oci:${layout}/l:x`);
  assert.equal(digestOf((await model(['pull', `oci-layout:${layout}/l:x`], { in: await newStore() })).out), digest);
  skopeo('copy', '--dest-tls-verify=false', `oci:${layout}/l:x`, `docker://${reg.host}/from/skopeo:2`);
  assert.equal(digestOf((await model(['pull', `oci://${reg.host}/from/skopeo:2`], { in: await newStore() })).out), digest);
  await model(['push', 'digits:1', `oci-layout:${layout}/mine:1`]);
  skopeo('copy', '--dest-tls-verify=false', `oci:${layout}/mine:1`, `docker://${reg.host}/from/mine:3`);
  await model(['save', 'digits:1', `${layout}/a.tar`]);
  skopeo('copy', '--dest-tls-verify=false', `oci-archive:${layout}/a.tar`, `docker://${reg.host}/from/archive:4`);
  assert.equal(digestOf((await model(['load', `${layout}/a.tar`, '-t', 'again:1'], { in: await newStore() })).out), digest);
}, { skip: noRegistry });

it('an image of a package runs on nothing but itself', async (t) => {
  await model(['pack', folder, '--image', 'digits-image:1']);
  const dir = await fleet.dir('atoll-image');
  await model(['push', 'digits-image:1', `oci-layout:${dir}/l:1`]);
  execFileSync('umoci', ['unpack', '--rootless', '--image', `${dir}/l:1`, `${dir}/b`], { stdio: 'ignore' });
  const config = JSON.parse(execFileSync('skopeo', ['inspect', '--config', `oci:${dir}/l:1`], { encoding: 'utf8' })).config;
  if (process.getuid() !== 0) return t.skip('unpacked; to run it by chroot needs root');
  const [program, ...args] = config.Entrypoint;
  args[args.indexOf('0.0.0.0:8080')] = '127.0.0.1:0';
  const proc = fleet.start('image', [`${dir}/b/rootfs`, program, ...args], { command: '/usr/sbin/chroot', env: { LD_LIBRARY_PATH: '', ASAN_OPTIONS: 'detect_leaks=0', ATOLL_ONNXRUNTIME: '' } });
  const line = await proc.line(/^ready runner (http:.*)$/m);
  const meta = await (await fetch(`${line[1]}/v2/models/digits`)).json();
  assert.equal(meta.inputs[0].name, 'image');
  await proc.kill('SIGKILL'); // sanitizers miss /proc there at the end
}, { skip: noSkopeo });

it('Basic credentials: from standard input, from docker\'s config.json, and what is said without', async () => {
  const dir = await fleet.dir('atoll-auth');
  // bcrypt of "secret", as htpasswd -B writes it
  const hash = execFileSync('openssl', ['version'], { encoding: 'utf8' }) && '$2b$05$ECeFbwlBtMLBWT7HTtPD8uzMIeg6XghEbQr6ZkEN1ibkkTa1S7wfG';
  await writeFile(path.join(dir, 'htpasswd'), `ada:${hash}\n`);
  const up = await liar(reg.host, (req, res, forward) => {
    if (req.headers.authorization !== `Basic ${Buffer.from('ada:secret').toString('base64')}`) {
      res.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end('{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}');
    } else forward();
  });
  after(() => up.close());
  const where = `oci://${up.host}/team/digits:1`;
  const none = await model(['pull', where], { in: await newStore(), ok: false });
  assert.match(none.err, /401.*who are you.*--password-stdin/s);
  assert.equal(none.code, 3);
  assert.equal((await model(['pull', where, '--username', 'ada', '--password-stdin'], { in: await newStore(), input: 'wrong\n', ok: false })).code, 3);
  await model(['pull', where, '--username', 'ada', '--password-stdin'], { in: await newStore(), input: 'secret\n' });
  await writeFile(path.join(dir, 'config.json'), JSON.stringify({ auths: { [up.host]: { auth: Buffer.from('ada:secret').toString('base64') } } }));
  await model(['pull', where], { in: await newStore(), env: { DOCKER_CONFIG: dir } });
  await writeFile(path.join(dir, 'config.json'), '{"auths":');
  assert.match((await model(['pull', where], { in: await newStore(), env: { DOCKER_CONFIG: dir }, ok: false })).err, /config\.json/);
}, { skip: noRegistry });

it('a token server: the token is asked once with the credentials, and goes to the registry only', async () => {
  let tokens = 0;
  const up = await liar(reg.host, (req, res, forward) => {
    if (req.url.startsWith('/token')) {
      tokens++;
      const q = new URL(req.url, 'http://x').searchParams;
      assert.equal(q.get('service'), 'reg');
      assert.equal(q.get('scope'), 'repository:team/digits:pull');
      assert.match(req.headers.authorization ?? '', /^Basic /);
      res.writeHead(200).end('{"token":"abc.def"}');
    } else if (req.headers.authorization !== 'Bearer abc.def') {
      res.writeHead(401, { 'WWW-Authenticate': `Bearer realm="http://${req.headers.host}/token",service="reg",scope="repository:team/digits:pull"` }).end();
    } else forward();
  });
  const other = await liar(reg.host, (req, res, forward) => forward());
  const moved = await liar(up.host, (req, res, forward) => {
    if (req.url.includes('/blobs/')) res.writeHead(307, { Location: `http://${other.host}${req.url}` }).end();
    else forward();
  });
  after(() => Promise.all([up.close(), other.close(), moved.close()]));
  await model(['pull', `oci://${up.host}/team/digits:1`, '--username', 'ada', '--password-stdin'], { in: await newStore(), input: 'x' });
  assert.equal(tokens, 1);
  await model(['pull', `oci://${moved.host}/team/digits:1`, '--username', 'ada', '--password-stdin'], { in: await newStore(), input: 'x' });
  assert.ok(other.seen.length > 0);
  for (const r of other.seen) assert.equal(r.headers.authorization, undefined, 'credentials stay with their host');
}, { skip: noRegistry });

it('a registry that lies: digest, length, range, an endless body, loops; nothing wrong is kept', async () => {
  const weights = sha(await readFile(DIGITS));
  const isBlob = (req) => req.url.includes(`/blobs/${weights}`);
  const loop = (req, res) => res.writeHead(302, { Location: `http://${req.headers.host}${req.url}` }).end();
  const cases = [
    ['other bytes', (req, res, forward) => forward((a) => (isBlob(req) ? { ...a, body: Buffer.alloc(a.body.length, 7) } : a)), /digest/],
    ['too long by its own word', (req, res, forward) => forward((a) => (isBlob(req) ? { ...a, headers: { ...a.headers, 'content-length': a.body.length + 5 }, body: Buffer.concat([a.body, Buffer.alloc(5)]) } : a)), /bytes, the manifest says/],
    ['endless', (req, res, forward) => {
      if (!isBlob(req)) return forward();
      res.writeHead(200);
      const more = () => { while (!res.destroyed && res.write(Buffer.alloc(65536))); if (!res.destroyed) res.once('drain', more); };
      res.on('error', () => {});
      more();
      return undefined;
    }, /sends more/],
    ['another manifest', (req, res, forward) => forward((a) => (req.url.includes('/manifests/') ? { ...a, body: Buffer.from(`${a.body} `), headers: { ...a.headers, 'content-length': a.body.length + 1 } } : a)), /digest/],
    ['no JSON', (req, res, forward) => forward((a) => (req.url.includes('/manifests/') ? { status: 200, headers: {}, body: Buffer.from('<html>') } : a)), /JSON/],
    ['huge manifest', (req, res, forward) => (req.url.includes('/manifests/') ? res.writeHead(200).end(Buffer.alloc(6 << 20, 32)) : forward()), /larger/],
    ['loops', (req, res, forward) => (isBlob(req) ? loop(req, res) : forward()), /place to place/],
    ['a file elsewhere', (req, res, forward) => (isBlob(req) ? res.writeHead(302, { Location: 'file:///etc/passwd' }).end() : forward()), /no address/],
    ['a crumb at a time', (req, res, forward) => (isBlob(req) ? res.writeHead(200).end('abcd') : forward()), /ended .* after 4 of/],
    ['no registry', (req, res) => res.writeHead(404).end('hello'), /no registry/],
    ['strange challenge', (req, res) => res.writeHead(401, { 'WWW-Authenticate': 'Bearer realm="' }).end(), /makes no sense|neither/],
  ];
  for (const [what, lie, pattern] of cases) {
    const l = await liar(reg.host, lie);
    const at = await newStore();
    const a = await model(['pull', `oci://${l.host}/team/digits:1`], { in: at, ok: false });
    assert.match(a.err, pattern, what);
    assert.ok(a.err.length < 1000);
    assert.equal((await model(['ls', '-o', 'name'], { in: at })).out, '', what);
    await assert.rejects(stat(blobFile(at, weights)), what);
    await l.close();
  }
}, { skip: noRegistry });

it('a registry that is down, or silent, ends with a sentence; one that fails a few times is tried again', async () => {
  const down = await model(['pull', 'oci://127.0.0.1:1/a/b:1'], { in: await newStore(), ok: false });
  assert.match(down.err, /127\.0\.0\.1:1/);
  assert.equal(down.code, 6);
  const silent = await liar(reg.host, () => {});
  const a = await model(['pull', `oci://${silent.host}/team/digits:1`, '--timeout', '1s'], { in: await newStore(), ok: false });
  assert.match(a.err, /not a byte came for 1 s/);
  await silent.close();
  let left = 3;
  const flaky = await liar(reg.host, (req, res, forward) => (req.url.includes('/blobs/') && left-- > 0 ? res.writeHead(503, { 'Retry-After': '0' }).end() : forward()));
  await model(['pull', `oci://${flaky.host}/team/digits:1`], { in: await newStore() });
  await flaky.close();
}, { skip: noRegistry });

// A package with one large file of random bytes.
async function largePackage(bytes) {
  const at = await newStore();
  const data = randomBytes(bytes);
  const dir = await modelFolder({ 'big.bin': data });
  await model(['init', dir, '--name', 'big', '--file', 'digits.onnx'], { in: at });
  await model(['pack', dir], { in: at });
  return { at, digest: sha(data), data };
}

it('large blobs go out in pieces; a pull that is killed -9 goes on where it was; two pulls fetch once', async () => {
  const big = await largePackage(6 << 20);
  const where = (host) => `oci://${host}/team/big:1`;
  await model(['push', 'big:1', where(reg.host), '--chunk', '1Mi'], { in: big.at });
  let bytes = 0;
  let hold = true;
  const slow = await liar(reg.host, (req, res, forward) => {
    if (!req.url.includes(big.digest)) return forward();
    const from = Number(req.headers.range?.match(/bytes=(\d+)-/)?.[1] ?? 0);
    const body = big.data.subarray(from);
    res.writeHead(from ? 206 : 200, { 'Content-Length': body.length, ...(from ? { 'Content-Range': `bytes ${from}-${big.data.length - 1}/${big.data.length}` } : {}) });
    const first = body.subarray(0, hold ? 2 << 20 : body.length);
    bytes += first.length;
    res.write(first);
    if (!hold) res.end();
    return undefined;
  });
  after(() => slow.close());
  const at = await newStore();
  const part = path.join(at, '.parts', big.digest.slice(7));
  const proc = fleet.start('pull', ['model', 'pull', where(slow.host)], { env: { ATOLL_MODELS: at, HOME: base } });
  await eventually('two megabytes are here', async () => (await stat(part).catch(() => ({ size: 0 }))).size === 2 << 20);
  await proc.kill('SIGKILL');
  hold = false;
  await model(['pull', where(slow.host)], { in: at });
  assert.equal(bytes, big.data.length, 'not a byte twice');
  assert.deepEqual(await readFile(blobFile(at, big.digest)), big.data);
  bytes = 0;
  const both = await newStore();
  await Promise.all([model(['pull', where(slow.host)], { in: both }), model(['pull', where(slow.host)], { in: both })]);
  assert.equal(bytes, big.data.length, 'once for two');
  // What an earlier run left wrong is found out at the end, and fetched anew.
  const third = await newStore();
  await mkdir(path.join(third, '.parts'), { recursive: true });
  await model(['ls'], { in: third });
  await writeFile(path.join(third, '.parts', big.digest.slice(7)), Buffer.alloc(1 << 20));
  await model(['pull', where(slow.host)], { in: third });
  assert.deepEqual(await readFile(blobFile(third, big.digest)), big.data);
}, { skip: noRegistry });

it('archives that would leave their folder, and other strange ones', async () => {
  const tar = (entries) => Buffer.concat([...entries.map(([name, type, data = '', link = '']) => {
    const h = Buffer.alloc(512);
    h.write(name, 0);
    h.write('0000644\0', 100);
    h.write('0000000\0', 108);
    h.write('0000000\0', 116);
    h.write(`${data.length.toString(8).padStart(11, '0')}\0`, 124);
    h.write('00000000000\0', 136);
    h.write(type, 156);
    h.write(link, 157);
    h.write('ustar\x0000', 257, 'latin1');
    h.fill(32, 148, 156);
    h.write(`${h.reduce((a, b) => a + b, 0).toString(8).padStart(6, '0')}\0 `, 148);
    return Buffer.concat([h, Buffer.from(data), Buffer.alloc((512 - (data.length % 512)) % 512)]);
  }), Buffer.alloc(1024)]);
  const dir = await fleet.dir('atoll-tars');
  // A ModelPack artifact with one tar layer, in a layout made by hand.
  const pull = async (layer, type = 'application/vnd.cncf.model.weight.v1.tar', notes = {}) => {
    const l = await fleet.dir('atoll-layout');
    await mkdir(path.join(l, 'blobs/sha256'), { recursive: true });
    const put = async (data) => {
      await writeFile(blobFile(l, sha(data)), data);
      return { digest: sha(data), size: Buffer.byteLength(data) };
    };
    const config = { mediaType: 'application/vnd.cncf.model.config.v1+json', ...(await put('{}')) };
    const manifest = await put(JSON.stringify({ schemaVersion: 2, config, layers: [{ mediaType: type, ...(await put(layer)), annotations: notes }] }));
    await writeFile(path.join(l, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    await writeFile(path.join(l, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType: 'application/vnd.oci.image.manifest.v1+json', ...manifest }] }));
    const to = path.join(await fleet.dir('atoll-out'), 'x');
    const a = await run(ATOLL, ['model', 'pull', `oci-layout:${l}`, '-t', 'x:1', '--to', to], { env: { ATOLL_MODELS: await newStore() } });
    assert.doesNotMatch(a.err, /Sanitizer/);
    return { ...a, to };
  };
  for (const [what, entries] of [
    ['..', [['../x', '0', 'a']]], ['absolute', [['/tmp/atoll-x', '0', 'a']]], ['inner ..', [['a/../../x', '0', 'a']]],
    ['symlink', [['l', '2', '', '/etc']]], ['hard link', [['l', '1', '', '/etc/passwd']]], ['device', [['d', '3']]], ['pipe', [['p', '6']]],
    ['link then file', [['l', '2', '', '/tmp'], ['l/x', '0', 'a']]], ['twice', [['a', '0', 'x'], ['a', '0', 'y']]], ['file as folder', [['a', '0', 'x'], ['a/b', '0', 'y']]],
  ]) {
    const a = await pull(tar(entries));
    assert.notEqual(a.code, 0, what);
    assert.match(a.err, /archive|twice|folder|link|Not a directory/i, what);
    await assert.rejects(stat(a.to), what);
    assert.deepEqual(await readdir(path.dirname(a.to)), [], 'nothing is left');
  }
  const good = await pull(tar([['./', '5'], ['./sub/', '5'], ['./sub/m.txt', '0', 'hello']]));
  assert.equal(good.code, 0, good.err);
  assert.equal(await readFile(path.join(good.to, 'sub/m.txt'), 'utf8'), 'hello');
  for (const cut of [100, 512, 700]) assert.notEqual((await pull(tar([['a', '0', 'x'.repeat(600)]]).subarray(0, cut))).code, 0);
  const { gzipSync } = await import('node:zlib');
  const zipped = await pull(gzipSync(tar([['m.txt', '0', 'zip']])), 'application/vnd.cncf.model.weight.v1.tar+gzip');
  assert.equal(await readFile(path.join(zipped.to, 'm.txt'), 'utf8'), 'zip');
  const bomb = tar([['m', '0', 'y']]);
  bomb.write(`${(400 << 20).toString(8).padStart(11, '0')}\0`, 124);
  bomb.fill(32, 148, 156);
  bomb.write(`${bomb.subarray(0, 512).reduce((x, y) => x + y, 0).toString(8).padStart(6, '0')}\0 `, 148);
  const GZIP = 'application/vnd.cncf.model.weight.v1.tar+gzip';
  assert.match((await pull(gzipSync(bomb), GZIP)).err, /too large/);
  const behind = Buffer.concat(Array(600).fill(gzipSync(Buffer.alloc(1 << 20), { level: 9 }))); // members of zeros behind the end
  assert.match((await pull(Buffer.concat([gzipSync(tar([['m', '0', 'y']])), behind]), GZIP)).err, /unpacks to too much/);
  const joined = await pull(Buffer.concat([gzipSync(tar([['a', '0', 'one']]).subarray(0, 1024)), gzipSync(tar([['b', '0', 'two']]))]), GZIP);
  assert.equal(joined.code, 0, joined.err); // two members, as some packers write them
  assert.equal(await readFile(path.join(joined.to, 'b'), 'utf8'), 'two');
  const pax = (key, value) => {
    let n = key.length + value.length + 3;
    n += `${n + 2}`.length;
    return ['pax', 'x', `${n} ${key}=${value}\n`];
  };
  for (const [what, entries, pattern] of [
    ['pax ..', [pax('path', '../../x'), ['a', '0', 'x']], /leaves its folder/], ['pax absolute', [pax('path', '/tmp/atoll-x'), ['a', '0', 'x']], /path/],
    ['pax link', [pax('linkpath', '/etc'), ['l', '2']], /symbolic link/], ['pax sparse', [pax('GNU.sparse.major', '1'), ['a', '0', 'x']], /sparse/],
    ['pax size', [pax('size', '99999999999999'), ['a', '0', 'x']], /too large/], ['pax less than it says', [['pax', 'x', '99 path=a\n'], ['a', '0', 'x']], /broken/],
    ['GNU ..', [['././@LongLink', 'L', '../x\0'], ['a', '0', 'x']], /leaves its folder/], ['GNU sparse', [['s', 'S', 'x']], /kind/],
    ['GNU link', [['././@LongLink', 'K', '/etc/passwd\0'], ['l', '1']], /hard link/],
    ['very long', [['././@LongLink', 'L', `${'d/'.repeat(400)}x\0`], ['a', '0', 'x']], /path/], ['an endless name', [['././@LongLink', 'L', 'x'.repeat(100_000)], ['a', '0', 'x']], /header.*too large/],
    ['line break', [['a\nb', '0', 'x']], /path/], ['folder twice, then a file', [['a/', '5'], ['a', '0', 'x']], /twice/], ['dots', [['.', '0', 'x']], /path/],
  ]) {
    const a = await pull(tar(entries));
    assert.match(a.err, pattern, what);
    assert.deepEqual(await readdir(path.dirname(a.to)), [], what);
  }
  for (const p of ['../x', '/x', 'a/../../x', 'a\\..\\x', '']) assert.notEqual((await pull('data', 'application/vnd.cncf.model.weight.v1.raw', { 'org.cncf.model.filepath': p })).code, 0, p);
  assert.deepEqual(await readdir(dir), []);
});

it('signatures: cosign\'s form, checked by openssl; no other key, package or payload passes', async () => {
  const keys = await fleet.dir('atoll-keys');
  const at = (name) => path.join(keys, name);
  const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] });
  openssl('genpkey', '-algorithm', 'ed25519', '-out', at('a.key'));
  openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', at('b.key'));
  openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384', '-out', at('r.key'));
  for (const k of ['a', 'b']) openssl('pkey', '-in', at(`${k}.key`), '-pubout', '-out', at(`${k}.pub`));
  const where = `oci://${reg.host}/team/digits:1`;
  const verify = (key, options) => model(['verify', where, '--key', at(key)], { in: store, ...options });
  assert.match((await verify('a.pub', { ok: false })).err, /no signature/);
  await model(['sign', where, '--key', at('b.key')]);
  assert.match((await verify('a.pub', { ok: false })).err, /trusted key/);
  await verify('b.pub', { in: await newStore() });
  await model(['sign', where, '--key', at('a.key')]);
  await verify('a.pub', { in: await newStore() });
  await verify('b.pub', { in: await newStore() });
  assert.match((await model(['sign', where, '--key', at('r.key')], { ok: false })).err, /neither ECDSA/);
  assert.match((await model(['sign', where, '--key', at('a.pub')], { ok: false })).err, /key/);
  // As cosign reads it: payload and signature of the first layer, by another program.
  const digest = digestOf((await model(['pull', where, '--key', at('b.pub')], { in: await newStore() })).out);
  const get = async (what, accept) => Buffer.from(await (await fetch(`http://${reg.host}/v2/team/digits/${what}`, { headers: { Accept: accept } })).arrayBuffer());
  const image = JSON.parse(await get(`manifests/sha256-${digest.slice(7)}.sig`, 'application/vnd.oci.image.manifest.v1+json'));
  const [layer] = image.layers;
  assert.equal(layer.mediaType, 'application/vnd.dev.cosign.simplesigning.v1+json');
  const payload = await get(`blobs/${layer.digest}`, '*/*');
  assert.equal(JSON.parse(payload).critical.image['docker-manifest-digest'], digest);
  await writeFile(at('payload'), payload);
  await writeFile(at('sig'), Buffer.from(layer.annotations['dev.cosignproject.cosign/signature'], 'base64'));
  openssl('dgst', '-sha256', '-verify', at('b.pub'), '-signature', at('sig'), at('payload'));
  // Signatures of one package put beside another say nothing of that.
  const dir = await modelFolder({ 'more.txt': 'x' });
  await model(['init', dir, '--name', 'second']);
  const second = digestOf((await model(['pack', dir])).out);
  await model(['push', 'second:1', `oci://${reg.host}/team/digits:2`]);
  const put = await fetch(`http://${reg.host}/v2/team/digits/manifests/sha256-${second.slice(7)}.sig`, { method: 'PUT', headers: { 'Content-Type': 'application/vnd.oci.image.manifest.v1+json' }, body: JSON.stringify(image) });
  assert.equal(put.status, 201);
  assert.match((await model(['verify', `oci://${reg.host}/team/digits:2`, '--key', at('b.pub')], { in: await newStore(), ok: false })).err, /another package/);
}, { skip: noRegistry });

it('a full disk ends with a sentence, and gives back what it took', async (t) => {
  if (process.getuid() !== 0) return t.skip('to mount a small disk needs root');
  const big = await largePackage(6 << 20);
  await model(['push', 'big:1', `oci://${reg.host}/team/full:1`], { in: big.at });
  const small = await fleet.dir('atoll-small');
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', small], { stdio: 'ignore' });
  } catch {
    return t.skip('nothing can be mounted here');
  }
  try {
    const a = await model(['pull', `oci://${reg.host}/team/full:1`], { in: path.join(small, 's'), ok: false });
    assert.match(a.err, /No space left/);
    assert.ok((await stat(path.join(small, 's/.parts', big.digest.slice(7)))).size < 1000);
  } finally {
    execFileSync('umount', [small]);
  }
}, { skip: noRegistry });

it('run serves a folder in one command and ends at Ctrl-C; ls and rm keep what is still named', async () => {
  const proc = fleet.start('run', ['model', 'run', folder, '--listen', '127.0.0.1:0'], { env: { ATOLL_MODELS: store } });
  const [, url] = await proc.line(/^ready runner (http:.*)$/m);
  assert.equal((await (await fetch(`${url}/v2/models/digits`)).json()).outputs[0].name, 'probabilities');
  proc.child.kill('SIGINT');
  assert.equal((await proc.exited).code, 0);
  const at = await newStore();
  await model(['pack', folder, '-t', 'a:1'], { in: at });
  await model(['pack', folder, '-t', 'b:1'], { in: at });
  await model(['rm', 'a:1'], { in: at });
  await stat(blobFile(at, sha(await readFile(DIGITS))));
  assert.match((await model(['rm', 'a:1'], { in: at, ok: false })).err, /holds no package a:1/);
  await model(['rm', 'b:1'], { in: at });
  assert.deepEqual(await readdir(path.join(at, 'blobs/sha256')), []);
});
