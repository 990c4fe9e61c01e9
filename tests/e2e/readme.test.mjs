// A new user with nothing but the README: its commands, taken from there and pasted one after the other. `make` is what built
// the binary under test; everything after it is run as it stands.
import assert from 'node:assert/strict';
import { readFile, mkdir, symlink } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, eventually, Fleet, KUBECTL, ROOT, run } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const here = await fleet.dir('atoll-clone');
const home = await fleet.dir('atoll-home');
await mkdir(path.join(here, 'build'));
await mkdir(path.join(here, 'bin'));
await symlink(ATOLL, path.join(here, 'build/atoll'));
await symlink(KUBECTL, path.join(here, 'bin/kubectl'));
await symlink(path.join(ROOT, 'examples'), path.join(here, 'examples'));
const readme = await readFile(path.join(ROOT, 'README.md'), 'utf8');
const section = (title, end) => readme.slice(readme.indexOf(title), readme.indexOf(end, readme.indexOf(title) + title.length));
const commands = (text) => text.split('\n').filter((l) => /^ {4}\S/.test(l)).map((l) => l.trim());
const tour = commands(section('## Five minutes', '### When something'));
const mending = commands(section('### When something', '## What is in the tree'));
const env = { HOME: home, PATH: `${path.join(here, 'bin')}:${process.env.PATH}`, NO_COLOR: '1', LANG: 'C.UTF-8' };
let dev;

// What a command must show, beside its exit status.
const SHOWS = [
  [/get instances -o wide/, /Running[\s\S]*Running[\s\S]*Running/],
  [/describe instance/, /Why: +placed on/],
  [/^kubectl get/, /deployment\.atoll\.dev\/digits/],
  [/^kubectl scale/, /scaled/],
  [/infer digits/, /largest: \[7\]/],
  [/plan -f broken/, /~ spec\.template\.spec\.resources\.memory: "256Mi" -> "64Ti"/],
  [/^build\/atoll get instances$/, /Pending/],
  [/explain placement/, /64Ti wanted/],
  [/events --types/, /FailedScheduling.*64Ti wanted/],
  [/diff -f/, /^\+\s+memory: 256Mi$/m],
];
const CODES = [[/plan -f/, 2], [/diff -f/, 1]];

async function paste(command) {
  const attempt = async () => {
    const r = await run('bash', ['-c', `cd ${here}; ${command}`], { env });
    const code = CODES.find(([p]) => p.test(command))?.[1] ?? 0;
    assert.equal(r.code, code, `${command}: exit ${r.code}\n${r.out}\n${r.err}`);
    for (const [pattern, shows] of SHOWS) if (pattern.test(command)) assert.match(r.out, shows, command);
    return true;
  };
  // What somebody who reads does: looks again after a moment.
  if (/events|explain placement|get instances|infer|diff/.test(command)) await eventually(command, attempt, { timeoutMs: 30_000, everyMs: 300 });
  else await attempt();
}

it('the tour: everything is started, a model is served and asked', async () => {
  assert.ok(tour.length >= 9, tour.join('\n'));
  for (const command of tour) {
    if (/atoll dev /.test(command)) {
      const words = command.split(/\s+/).slice(1);
      // Its folder is below the home of who is not root; ports are free ones, for others may use the usual ones.
      dev = fleet.start('atoll dev', [...words, '--state', path.join(home, 'dev'), '--free-ports'], { cwd: here, env });
      await dev.line(/^ready dev$/m);
      const [, file] = await dev.line(/^export KUBECONFIG=(\S+)$/m);
      env.KUBECONFIG = file;
    } else if (/^export KUBECONFIG=/.test(command)) {
      assert.ok(env.KUBECONFIG, 'dev prints this line itself');
    } else {
      await paste(command);
    }
  }
});

it('something broken is found and mended', async () => {
  assert.ok(mending.length >= 9, mending.join('\n'));
  for (const command of mending) await paste(command);
  const left = JSON.parse((await run(ATOLL, ['get', 'instances', '-o', 'json'], { env })).out).items;
  assert.ok(left.some((i) => i.status?.ready));
  await eventually('nothing is pending any more', async () => {
    const r = await run(ATOLL, ['get', 'instances', '--no-headers'], { env });
    return !/Pending/.test(r.out);
  });
  assert.equal((await run(ATOLL, ['plan', '-f', path.join(ROOT, 'examples/quickstart')], { env })).code, 0);
});

it('what the README names beside the commands works too', async () => {
  for (const command of [`build/atoll logs deployment/digits --tail 1`, 'build/atoll exec deployment/digits -- true', 'source <(build/atoll completion bash)', 'build/atoll help', 'EDITOR=true build/atoll edit deployment digits']) {
    await paste(command);
  }
  assert.equal((await dev.stop({ signal: 'SIGINT' })).code, 0);
});
