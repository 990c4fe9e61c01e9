// Every example of every verb's --help, taken from there and run in a shell against a live `atoll dev`, as a user would paste it.
// Changed are only: names that are made up at random (instances, tokens), the registry (a real one on loopback), and folders outside
// the test's own. What does not end by itself is stopped once it has shown what it should.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, configMap, eventually, Fleet, ROOT, run, yaml } from './lib/atoll.mjs';
import { freePort } from './lib/etcd.mjs';

const QUICKSTART = path.join(ROOT, 'examples/quickstart');
const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const state = await fleet.dir('atoll-examples');
const home = await fleet.dir('atoll-home');
const dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--models', path.join(QUICKSTART, 'models'), '--site', 'onprem', '--site', 'edge', '--site', 'cloud']);

// The folder that somebody stands in.
const here = await fleet.dir('atoll-here');
const bin = path.join(here, 'bin');
await mkdir(bin);
await symlink(path.join(ROOT, 'examples'), path.join(here, 'examples'));
await symlink(ATOLL, path.join(bin, 'atoll'));
await mkdir(path.join(here, 'deploy/below'), { recursive: true });
await writeFile(path.join(here, 'deploy/app.yaml'), yaml(configMap('shop', { a: '1' })));
await writeFile(path.join(here, 'deploy/below/more.yaml'), yaml(configMap('shop-more', { a: '1' })));
await cp(path.join(QUICKSTART, '1-sites.yaml'), path.join(here, 'site.yaml'));
for (const name of ['x.yaml', 'app.yaml']) await writeFile(path.join(here, name), yaml(configMap(name.split('.')[0], { a: '1' })));
const { inputs: [{ data: [pixels] }] } = JSON.parse(await readFile(path.join(QUICKSTART, 'data/digits-test.json'), 'utf8'));
await writeFile(path.join(here, 'pixels.json'), JSON.stringify([pixels]));
await writeFile(path.join(here, 'request.json'), JSON.stringify({ inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 64], data: pixels }] }));
await cp(path.join(QUICKSTART, 'data/digits-test.json'), path.join(here, 'digits-test.json'));
await mkdir(path.join(here, 'digits'));
await cp(path.join(QUICKSTART, 'models'), path.join(here, 'digits'), { recursive: true });
for (const dir of ['.zfunc', '.config/fish/completions', '.local/share/bash-completion/completions', 'backups']) await mkdir(path.join(home, dir), { recursive: true });
// The program that encrypts a backup is no part of this: where it is not installed, one that passes everything on stands in.
const has = (program) => {
  try {
    return execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }) !== '';
  } catch {
    return false;
  }
};
if (!has('age')) await writeFile(path.join(bin, 'age'), '#!/bin/sh\nexec cat\n', { mode: 0o755 });

await dev.line(/^ready dev$/m);
await cp(path.join(state, 'admin.kubeconfig'), path.join(here, 'kubeconfig'));
const env = { ...process.env, KUBECONFIG: path.join(state, 'admin.kubeconfig'), HOME: home, PATH: `${bin}:${process.env.PATH}`, NO_COLOR: '1', MANPAGER: 'cat', EDITOR: "sed -i 's/^metadata:$/metadata: # seen/'", KEY: 'age1test' };
const sh = (command, options = {}) => run('bash', ['-c', `set -o pipefail; cd ${here}; ${command}`], { env, ...options });
const atoll = async (args, input) => {
  const r = await run(ATOLL, args.split(' '), { env, ...(input ? { input } : {}) });
  assert.equal(r.code, 0, `${args}: ${r.out}${r.err}`);
  return r.out;
};

// What the examples speak of: the quickstart, a job, settings, and a context of one's own.
async function world() {
  await atoll(`apply -f ${QUICKSTART}`);
  await atoll('apply -f -', yaml([configMap('settings', { a: '1' }), { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team' } },
    { apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: 'train' }, spec: { completions: 3, parallelism: 3, template: { spec: { command: ['true'], resources: { cpu: '50m', memory: '32Mi' } } } } }]));
  await atoll('wait deployment/digits --for=condition=Available --timeout=60s');
}
const instance = async () => JSON.parse(await atoll('get instances -l atoll.dev/deployment=digits -o json')).items.find((i) => i.status?.ready && !i.metadata.deletionTimestamp)?.metadata.name;

// [what the example begins with or is, how it is run]. codes: statuses that are right; until: seen, then Ctrl-C; input: typed.
const NO = [0, 1];
const HOW = [
  [/^atoll plan -/, { codes: [0, 2] }],
  [/diff -f/, { codes: NO }],
  [/^atoll auth can-i delete/, { codes: [1] }], // eve may not
  [/scan (deploy|--live|-)/, { codes: NO }], // findings are no failure of the example
  [/ -w$/, { until: /\n.*\n/ }],
  [/^atoll logs .* -f/, { until: /./ }],
  [/^atoll port-forward/, { until: /Forwarding from/, change: ['8080:', `${await freePort()}:`] }], // 8080 may be somebody's
  [/^atoll exec -it/, { tty: true, input: 'echo in the $((40 + 2)) shell\nexit\n', shows: /in the 42 shell/ }],
  [/^atoll record/, { grows: 'fleet.jsonl' }],
  [/^atoll load/, { change: [/( --duration 30s|$)/, ' --duration 1s'] }], // the same, in less time
  [/^atoll wait instance\/.*--for=delete/, { before: (name) => atoll(`delete instance ${name} --wait=false`) }],
  [/^atoll config set-context/, { after: () => atoll('config set-context --current --namespace default') }],
  [/^atoll model run/, { until: /./ }],
  [/^atoll model run \.\/digits$/, { until: /ready/, change: [/$/, ` --listen 127.0.0.1:${await freePort()}`] }], // port 8080 may be somebody's
  [/^atoll model (push|pull)/, { change: [/$/, ' --plain-http'] }], // the registry here has no certificate
  [/^atoll key rotate/, { before: () => run(ATOLL, ['key', 'create', 'ci'], { env }) }],
  [/^atoll key create/, { after: () => run(ATOLL, ['key', 'revoke', 'ci'], { env }) }],
  [/^atoll wait job\/train/, { change: ['=3', '=3 --timeout=60s'] }], // a busy machine
];
// Not run, with the reason.
const EXEMPT = [
  ...(has('docker-registry') ? [] : [[/^atoll model (push|pull)/, 'needs a registry (package docker-registry)']]),
];
// The last ones take away what others need.
const LATE = ['scale', 'delete', 'model'];

const examplesOf = (help) => (/\nExamples:\n([\s\S]*?)\n\nOptions:/.exec(`${help}`.replace(/\nOptions:/, '\n\nOptions:')) ?? ['', ''])[1].split('\n').map((l) => l.trim()).filter(Boolean);
const verbs = /\nVerbs:\n([\s\S]*?)\n\n/.exec(await atoll('help'))[1].split('\n').map((l) => l.trim().split(/\s+/)[0]);

async function registry() {
  const port = await freePort();
  const config = await fleet.file('registry.yml', `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${await fleet.dir('registry')}}}\nhttp: {addr: '127.0.0.1:${port}'}\n`);
  const proc = fleet.start('docker-registry', ['serve', config], { command: 'docker-registry' });
  proc.stop = () => proc.kill('SIGTERM').then(() => ({ code: 0 }));
  await eventually('the registry answers', async () => (await fetch(`http://127.0.0.1:${port}/v2/`)).ok);
  return `127.0.0.1:${port}`;
}

async function runExample(example, where) {
  const how = Object.assign({}, ...HOW.filter(([pattern]) => pattern.test(example)).map(([, h]) => h));
  let command = example.replaceAll('/var/backups', path.join(home, 'backups'));
  if (where) command = command.replaceAll('registry.example.com', where);
  let name;
  if (/-x1y2z-abcde/.test(command)) {
    name = await eventually('a ready instance', instance);
    command = command.replaceAll('digits-x1y2z-abcde', name);
  }
  // The id of a token is made up by the server.
  if (/0123456789abcdef/.test(command)) command = command.replaceAll('0123456789abcdef', JSON.parse(await atoll('get accesstokens -o json')).items[0].metadata.name);
  if (how.change) command = command.replace(...how.change);
  await how.before?.(name);
  if (how.until || how.grows) {
    const proc = fleet.start(example, ['-c', `cd ${here}; exec ${command}`], { command: 'bash', env });
    if (how.grows) await eventually(`${how.grows} is written`, async () => (await readFile(path.join(here, how.grows), 'utf8')).includes('\n'));
    else await proc.line(how.until);
    await proc.stop({ signal: 'SIGINT' }).catch(() => {});
  } else {
    const r = how.tty ? await run('script', ['-qec', command, '/dev/null'], { env: { ...env, PWD: here }, input: how.input }) : await sh(command, { input: how.input });
    assert.ok((how.codes ?? [0]).includes(r.code), `${command}: exit ${r.code}\n${r.out}\n${r.err}`);
    if (how.shows) assert.match(r.out, how.shows);
    assert.doesNotMatch(r.err, /unknown (verb|option)/, command);
  }
  await how.after?.();
}

it('every verb has two examples at least', async () => {
  assert.ok(verbs.length > 25, verbs.join());
  for (const verb of verbs) {
    const examples = examplesOf(await atoll(`${verb} --help`));
    assert.ok(examples.length >= 2, `${verb}: ${examples.length}`);
    for (const e of examples) assert.match(e, new RegExp(`atoll ${verb}( |$)`), e);
  }
  await world();
});

for (const verb of [...verbs.filter((v) => !LATE.includes(v)), ...LATE.filter((v) => verbs.includes(v))]) {
  it(`the examples of ${verb} --help work`, async (t) => {
    const where = verb === 'model' && !EXEMPT.some(([p]) => p.test('atoll model push')) ? await registry() : undefined;
    for (const example of examplesOf(await atoll(`${verb} --help`))) {
      const [, reason] = EXEMPT.find(([pattern]) => pattern.test(example)) ?? [];
      if (reason) {
        t.diagnostic(`not run: ${example}: ${reason}`);
        continue;
      }
      if (verb === 'delete') await world();
      await runExample(example, where);
    }
  });
}

it('ends cleanly', async () => {
  assert.equal((await dev.stop({ signal: 'SIGINT' })).code, 0);
});
