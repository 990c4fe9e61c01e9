// Kubeconfig files: atoll config beside kubectl config on the same files, plug-ins and names to act as against a live server.
import assert from 'node:assert/strict';
import { chmod, copyFile, lstat, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, Fleet, KUBECTL, run } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const s = await fleet.server();
const home = await fleet.dir('atoll-home');
const base = { HOME: home, PATH: process.env.PATH, NO_COLOR: '1' };
const at = (KUBECONFIG) => ({ ...base, KUBECONFIG });
const atoll = (args, env, options = {}) => run(ATOLL, args, { env, ...options });
const kubectl = (args, env) => run(KUBECTL, args, { env });
const user = JSON.parse((await kubectl(['config', 'view', '--raw', '-o', 'json'], at(s.kubeconfig))).out);

// What both show of the same files, whatever each writes of what is empty.
const shape = (text) => {
  const c = JSON.parse(text);
  const list = (l) => (l ?? []).map((e) => JSON.stringify(e, Object.keys(e).sort().concat(Object.keys(Object.values(e).find((v) => typeof v === 'object') ?? {}).sort()))).sort();
  return { current: c['current-context'], contexts: list(c.contexts), clusters: list(c.clusters), users: list(c.users) };
};

it('every change leaves the files as kubectl leaves them', async () => {
  const STEPS = [
    ['set-cluster', 'prod', '--server', 'https://prod.example:6443', '--tls-server-name', 'api.prod'],
    ['set-cluster', 'with.dots', '--server', 'https://d:1', '--certificate-authority', path.join(home, 'ca.pem'), '--embed-certs'],
    ['set-credentials', 'ann', '--token', 'tok-1'],
    ['set-credentials', 'bob', '--exec-command', 'login-tool', '--exec-arg', 'get', '--exec-arg', 'token', '--exec-env', 'A=b', '--exec-api-version', 'client.authentication.k8s.io/v1', '--exec-interactive-mode', 'IfAvailable'],
    ['set-context', 'prod', '--cluster', 'prod', '--user', 'ann', '--namespace', 'team'],
    ['set-context', 'dev', '--cluster', 'with.dots', '--user', 'bob'],
    ['use-context', 'prod'],
    ['set-context', '--current', '--namespace', 'other'],
    ['rename-context', 'prod', 'production'],
    ['set', 'contexts.dev.namespace', 'd'],
    ['set', 'clusters.prod.server', 'https://prod.example'],
    ['unset', 'contexts.dev.namespace'],
    ['delete-user', 'bob'],
    ['delete-cluster', 'with.dots'],
    ['delete-context', 'dev'],
  ];
  await writeFile(path.join(home, 'ca.pem'), 'not a real one\n');
  const dir = await fleet.dir('atoll-config');
  // What each step does is the same for one file as for two: the first ones show that.
  for (const layout of ['one', 'two']) {
    const files = (who) => (layout === 'one' ? [`${who}-1`] : [`${who}-1`, `${who}-2`]).map((n) => path.join(dir, `${layout}-${n}`));
    for (const who of ['ours', 'theirs']) {
      if (layout === 'two') await copyFile(s.kubeconfig, files(who)[1]);
    }
    for (const step of layout === 'two' ? STEPS : STEPS.slice(0, 8)) {
      const ours = step.filter((w, i) => !/--exec-api-version|--exec-interactive-mode/.test(w) && !/--exec-api-version|--exec-interactive-mode/.test(step[i - 1]));
      const a = await atoll(['config', ...ours], at(files('ours').join(':')));
      const b = await kubectl(['config', ...step], at(files('theirs').join(':')));
      assert.equal(a.code, 0, `${step}: ${a.err}`);
      assert.equal(b.code, 0, `${step}: ${b.err}`);
      for (const [i, file] of files('ours').entries()) {
        const see = async (f) => shape((await atoll(['config', 'view', '--raw', '-o', 'json', '--kubeconfig', f], base)).out || '{}');
        const [mine, theirs] = [await see(file), await see(files('theirs')[i])];
        assert.deepEqual(mine, theirs, `${layout} file ${i} after ${step.join(' ')}`);
      }
    }
    const all = files('ours').join(':');
    for (const args of [['view', '-o', 'json'], ['view', '--minify', '-o', 'json'], ['view', '--raw', '--flatten', '-o', 'json']]) {
      assert.deepEqual(shape((await atoll(['config', ...args], at(all))).out), shape((await kubectl(['config', ...args], at(all))).out), args.join(' '));
    }
    for (const args of [['get-contexts'], ['get-contexts', '-o', 'name'], ['current-context'], ['get-clusters'], ['get-users']]) {
      const words = (text) => text.split('\n').map((l) => l.trim().split(/\s+/)).sort(); // kubectl's order is any
      assert.deepEqual(words((await atoll(['config', ...args], at(all))).out), words((await kubectl(['config', ...args], at(all))).out), args.join(' '));
    }
    assert.equal((await stat(files('ours').at(-1))).mode & 0o777, 0o600);
  }
});

it('contexts choose the server, the user and the namespace; several files are one', async () => {
  const dir = await fleet.dir('atoll-config');
  const mine = path.join(dir, 'mine');
  const env = at(`${mine}:${s.kubeconfig}`);
  const [cluster, who] = [user.clusters[0].name, user.users[0].name];
  await writeFile(mine, 'contexts: []\n', { mode: 0o600 }); // the first file that is there takes what is new
  assert.equal((await atoll(['config', 'set-context', 'team', '--cluster', cluster, '--user', who, '--namespace', 'kube-system'], env)).code, 0);
  assert.ok(!(await readFile(s.kubeconfig, 'utf8')).includes('team'));
  let r = await atoll(['get', 'configmaps', '--context', 'team'], env);
  assert.match(r.err, /No resources found in namespace kube-system/);
  r = await atoll(['get', 'nodes', '--context', 'teem'], env);
  assert.deepEqual([r.code, /there is no context "teem".*get-contexts/.test(r.err)], [4, true]);
  r = await atoll(['config', 'use-context', 'teem'], env);
  assert.match(r.err, /did you mean team/);
  r = await atoll(['config', 'use-contxt', 'team'], env);
  assert.match(r.err, /did you mean use-context/);
});

it('files that others may change are refused, secrets that others may read are told, links stay links', async () => {
  const dir = await fleet.dir('atoll-config');
  const file = path.join(dir, 'config');
  await copyFile(s.kubeconfig, file);
  await chmod(file, 0o666);
  let r = await atoll(['get', 'sites'], at(file));
  assert.deepEqual([r.code, /anyone may change this file.*chmod 600/.test(r.err)], [3, true]);
  await chmod(file, 0o644);
  r = await atoll(['get', 'sites'], at(file));
  assert.deepEqual([r.code, /^warning: .*holds a secret.*chmod 600/.test(r.err)], [0, true]);
  await chmod(file, 0o600);
  await symlink('config', path.join(dir, 'link'));
  r = await atoll(['config', 'set-context', 'x', '--cluster', 'y'], at(path.join(dir, 'link')));
  assert.equal(r.code, 0, r.err);
  assert.ok((await lstat(path.join(dir, 'link'))).isSymbolicLink());
  await writeFile(`${file}.lock`, '');
  r = await atoll(['config', 'unset', 'contexts.x'], at(file));
  assert.deepEqual([r.code, /config\.lock is there/.test(r.err)], [5, true]);
});

it('an exec plug-in gives the token, is asked again when it is refused, and its failure is told', async () => {
  const dir = await fleet.dir('atoll-plugin');
  const calls = path.join(dir, 'calls');
  const env = at(path.join(dir, 'config'));
  const wrong = await fleet.file('old', 'old');
  await copyFile(s.kubeconfig, env.KUBECONFIG);
  assert.equal((await atoll(['apply', '-f', '-'], env, { input: JSON.stringify({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'robot' } }) })).code, 0);
  const token = (await kubectl(['create', 'token', 'robot'], env)).out.trim();
  await writeFile(path.join(dir, 'good'), token);
  // The first answer is a token that no server knows.
  await writeFile(path.join(dir, 'plug'), `#!/bin/sh\necho call >> ${calls}\nn=$(wc -l < ${calls})\n[ $n = 1 ] && t=$(cat ${wrong}) || t=$(cat ${dir}/good)\nprintf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}' "$t"\n`, { mode: 0o755 });
  assert.equal((await atoll(['config', 'set-credentials', 'robot', '--exec-command', './plug'], env)).code, 0);
  assert.equal((await atoll(['config', 'set-context', 'robot', '--cluster', user.clusters[0].name, '--user', 'robot'], env)).code, 0);
  const r = await atoll(['get', 'sites', '--context', 'robot'], env);
  assert.equal(r.code, 3);
  assert.match(r.err, /system:serviceaccount:default:robot.*cannot list.*sites/);
  assert.equal((await readFile(calls, 'utf8')).split('\n').length - 1, 2);
  await writeFile(path.join(dir, 'plug'), '#!/bin/sh\necho "log in first" >&2\nexit 1\n', { mode: 0o755 });
  const bad = await atoll(['get', 'sites', '--context', 'robot'], env);
  assert.equal(bad.code, 3);
  assert.match(bad.err, /log in first[\s\S]*credential plug-in \.\/plug: it ended with status 1/);
});

it('--as acts as another, and the file can say so for good', async () => {
  const env = at(s.kubeconfig);
  let r = await atoll(['get', 'sites', '--as', 'eve'], env);
  assert.deepEqual([r.code, /User "eve" cannot list/.test(r.err)], [3, true]);
  r = await atoll(['get', 'sites', '--as', 'eve', '--as-group', 'atoll:viewers'], env);
  assert.equal(r.code, 0);
  r = await atoll(['get', 'sites', '--as-group', 'atoll:viewers'], env);
  assert.deepEqual([r.code, /needs a user: --as/.test(r.err)], [2, true]);
});

it('what every verb takes may stand before it, as with kubectl', async () => {
  const kubeconfig = await fleet.file('early', await readFile(s.kubeconfig, 'utf8'), { mode: 0o600 });
  await s.k('create namespace early');
  await s.k('create configmap there -n early');
  const env_ = { HOME: await fleet.dir('atoll-home'), PATH: process.env.PATH, NO_COLOR: '1' };
  for (const words of [['--kubeconfig', kubeconfig, '-n', 'early', 'get', 'configmap', 'there', '-o', 'name'], [`--kubeconfig=${kubeconfig}`, '-nearly', 'get', '-oname', 'configmap/there'], [`--kubeconfig=${kubeconfig}`, '--namespace=early', '--as=admin', '--as-group', 'system:masters', 'get', 'configmaps', 'there', '-o=name']]) {
    const [a, b] = [await run(ATOLL, words, { env: env_ }), await run(KUBECTL, words, { env: env_ })];
    assert.deepEqual([a.code, a.out], [b.code, b.out], words.join(' ') + a.err);
    assert.equal(a.out, 'configmap/there\n');
  }
  const r = await run(ATOLL, ['-n', 'early', 'got', 'x'], { env: env_ });
  assert.deepEqual([r.code, /unknown verb "got", did you mean get/.test(r.err)], [2, true], r.err);
});

it('a server that the file does not trust is told from one that does not take its user', async () => {
  const text = await readFile(s.kubeconfig, 'utf8');
  const env_ = { HOME: await fleet.dir('atoll-home'), PATH: process.env.PATH, NO_COLOR: '1' };
  const untrusted = await fleet.file('untrusted', text.replace(/^ *certificate-authority-data: .*\n/m, ''), { mode: 0o600 });
  const misnamed = await fleet.file('misnamed', text.replace(/^( *)(server: .*)$/m, '$1$2\n$1tls-server-name: other.example.org'), { mode: 0o600 });
  for (const file of [untrusted, misnamed]) {
    const r = await run(ATOLL, ['get', 'nodes', '-k', file], { env: env_ });
    assert.equal(r.code, 3);
    assert.match(r.err, /certificate[\s\S]*hint: this server is not one that the kubeconfig trusts/);
  }
});
