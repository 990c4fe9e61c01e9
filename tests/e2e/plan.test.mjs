// plan, diff and prune: what is shown before is what happens after, and nothing else.
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, configMap, deployment, Fleet, KUBECTL, run, site, yaml } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const s = await fleet.server();
const env = { KUBECONFIG: s.kubeconfig, HOME: await fleet.dir('atoll-home'), PATH: process.env.PATH, NO_COLOR: '1' };
const atoll = (args, options = {}) => run(ATOLL, args.split(' '), { env: { ...env, ...options.env }, ...(options.input ? { input: options.input } : {}) });
const plan = async (objects, more = '') => atoll(`plan -f -${more}`, { input: yaml(objects) });
const apply = async (objects, more = '') => {
  const r = await atoll(`apply -f -${more}`, { input: yaml(objects) });
  assert.equal(r.code, 0, r.err);
  return r.out;
};
const versions = async () => JSON.stringify((await s.get('sites,deployments,configmaps,secrets -A')).items.map((i) => [i.kind, i.metadata.name, i.metadata.resourceVersion]));
const fields = (r) => Object.fromEntries(JSON.parse(r.out).changes.map((c) => [`${c.kind}/${c.name}`, c.action === 'none' ? 'none' : [c.action, ...c.fields.map((f) => `${'before' in f ? ('after' in f ? '~' : '-') : '+'}${f.path}`)]]));

it('plan tells fields that are new, changed and gone, with what the server fills in, and changes nothing', async () => {
  const app = (spec, env = []) => deployment('app', { ...spec, template: { spec: { command: ['sleep', '1'], env } } }, { labels: { a: '1' } });
  const before = await versions();
  let r = await plan([site('here'), app({ replicas: 2 })]);
  assert.equal(r.code, 2, r.err);
  assert.match(r.out, /^\+ site\.atoll\.dev\/here will be created$/m);
  assert.match(r.out, /^\+ deployment\.atoll\.dev\/app \(namespace default\) will be created$/m);
  assert.match(r.out, /^ {4}\+ spec\.replicas: 2$/m);
  assert.match(r.out, /^ {4}\+ spec\.template\.spec\.terminationGracePeriod: /m); // nobody wrote that
  assert.match(r.out, /^Plan: 2 to create, 0 to change, 0 to delete, 0 as they are\.$/m);
  assert.equal(await versions(), before);
  await apply([site('here'), app({ replicas: 2 }, [{ name: 'A', value: '1' }, { name: 'B', value: '2' }])]);
  r = await plan([site('here'), app({ replicas: 2 }, [{ name: 'A', value: '1' }, { name: 'B', value: '2' }])]);
  assert.deepEqual([r.code, r.out], [0, 'No changes: 2 as the files say.\n']);
  const now = await versions();
  const next = [site('here', { class: 'onprem' }), app({ replicas: 5 }, [{ name: 'B', value: '3' }, { name: 'C', value: '4' }])];
  delete next[1].metadata.labels;
  r = await plan(next);
  assert.equal(r.code, 2);
  assert.match(r.out, /^ {4}~ spec\.replicas: 2 -> 5$/m);
  assert.match(r.out, /^ {4}- metadata\.labels\.a: "1"$/m);
  assert.match(r.out, /^ {4}~ spec\.template\.spec\.env\[name=B\]\.value: "2" -> "3"$/m);
  r = await plan(next, ' -o json');
  assert.equal(r.code, 2);
  assert.deepEqual(fields(r)['Site/here'], ['update', '~spec.class']);
  const got = fields(r)['Deployment/app'];
  for (const f of ['-metadata.labels.a', '~spec.replicas', '-spec.template.spec.env[name=A].name', '+spec.template.spec.env[name=C].value']) assert.ok(got.includes(f), `${f}: ${got}`);
  assert.equal(await versions(), now);
  await apply(next);
  assert.equal((await plan(next)).code, 0);
});

it('plan is in colour on a terminal only', async () => {
  const file = await fleet.file('new.yaml', yaml(site('coloured')));
  const { NO_COLOR, ...colourful } = env;
  const piped = await run(ATOLL, ['plan', '-f', file], { env: colourful });
  assert.ok(!piped.out.includes('\u001b'));
  const shown = await run('script', ['-qec', `${ATOLL} plan -f ${file}`, '/dev/null'], { env: { ...colourful, TERM: 'xterm' } });
  assert.match(shown.out, /\u001b\[1;32m\+ site\.atoll\.dev\/coloured/);
  assert.equal(shown.code, 2);
  const none = await run('script', ['-qec', `${ATOLL} plan -f ${file}`, '/dev/null'], { env: { ...colourful, TERM: 'xterm', NO_COLOR } });
  assert.ok(!none.out.includes('\u001b[1;32m'));
});

it('an error of plan is 1, of diff more than 1, whatever kind it is of', async () => {
  for (const args of ['plan', 'plan tomorrow', 'plan -f /nonexistent', 'plan --bogus', 'plan -f - -o xml']) {
    assert.equal((await atoll(args, { input: yaml(site('x')) })).code, 1, args);
  }
  const wrong = await atoll('plan -f -', { input: yaml(site('x', { class: 'moon' })) });
  assert.deepEqual([wrong.code, /line 3: spec\.class/.test(wrong.err)], [1, true], wrong.err);
  const config = await fleet.file('config', 'current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]\n');
  const down = await atoll('plan -f -', { input: yaml(site('x')), env: { KUBECONFIG: config } });
  assert.equal(down.code, 1, down.err);
  for (const args of ['diff', 'diff -f /nonexistent', 'diff --bogus']) {
    assert.ok((await atoll(args)).code > 1, args);
  }
  const missing = await atoll('diff -f -', { input: yaml(site('x')), env: { ATOLL_EXTERNAL_DIFF: '/no/such/program' } });
  assert.ok(missing.code > 1);
  assert.match(missing.err, /not installed; name another in \$ATOLL_EXTERNAL_DIFF/);
});

it('diff is kubectl\'s: unified, by any program, 0 and 1, and Secrets stay secret', async () => {
  const secret = (v) => ({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'pw' }, stringData: { a: v, same: 'kept-one' } });
  await apply([configMap('c', { k: 'old' }), secret('first-value')]);
  const same = await atoll('diff -f -', { input: yaml([configMap('c', { k: 'old' }), secret('first-value')]) });
  assert.deepEqual([same.code, same.out], [0, ''], same.err);
  const next = yaml([configMap('c', { k: 'new' }), secret('second-value'), configMap('fresh', { z: '1' })]);
  const r = await atoll('diff -f -', { input: next });
  assert.equal(r.code, 1, r.err);
  assert.match(r.out, /^-\s+k: old$/m);
  assert.match(r.out, /^\+\s+k: new$/m);
  assert.match(r.out, /^\+\s+z: '1'$|^\+\s+z: "1"$/m);
  assert.match(r.out, /\*\*\* \(before\)/);
  assert.doesNotMatch(r.out + (await atoll('plan -f -', { input: next })).out, /value|Zmlyc3Q|c2Vjb25k|a2VwdC/);
  const theirs = await run(KUBECTL, ['diff', '-f', '-'], { env, input: next });
  const changed = (text) => text.split('\n').filter((l) => /^[+-] /.test(l) && !/uid|creationTimestamp|resourceVersion|generation|managedFields/.test(l)).sort();
  assert.deepEqual(changed(r.out).filter((l) => / k: /.test(l)), changed(theirs.out).filter((l) => / k: /.test(l)));
  const named = await atoll('diff -f -', { input: next, env: { ATOLL_EXTERNAL_DIFF: 'ls -R' } });
  assert.deepEqual([named.code, /LIVE:[\s\S]*v1\.ConfigMap\.default\.c\n[\s\S]*MERGED:[\s\S]*v1\.ConfigMap\.default\.fresh/.test(named.out)], [0, true]);
});

it('folders: -R takes those below; several files are one change', async () => {
  const dir = await fleet.dir('atoll-manifests');
  await mkdir(path.join(dir, 'a/b'), { recursive: true });
  await mkdir(path.join(dir, '.hidden'));
  await writeFile(path.join(dir, 'a/b/one.yaml'), yaml(configMap('deep', { a: '1' })));
  await writeFile(path.join(dir, 'a/two.json'), JSON.stringify(configMap('json', { a: '1' })));
  await writeFile(path.join(dir, 'a/notes.txt'), 'no manifest');
  await writeFile(path.join(dir, '.hidden/x.yaml'), 'broken: [');
  let r = await atoll(`apply -f ${dir}`);
  assert.match(r.err, /-R looks into the folders below/);
  r = await atoll(`apply -R -f ${dir}`);
  assert.deepEqual(r.out.split('\n').filter(Boolean), ['configmap/deep created', 'configmap/json created'], r.err);
  r = await atoll(`delete -R -f ${dir}`);
  assert.equal(r.code, 0, r.err);
});

it('prune by labels: what was applied and is gone from the files, and nothing that was made otherwise', async () => {
  const at = (name, labels = { app: 'shop' }) => configMap(name, { n: name }, { labels });
  await apply([at('one'), at('two'), at('other', { app: 'mail' })]);
  await s.k(['create', 'configmap', 'byhand']);
  await s.k('label configmap byhand app=shop');
  let r = await plan([at('one')], ' --prune -l app=shop');
  assert.equal(r.code, 2);
  assert.match(r.out, /^- configmap\/two \(namespace default\) will be deleted \(pruned\)$/m);
  assert.doesNotMatch(r.out, /byhand|other/);
  r = await atoll('apply -f - --prune -l app=shop --dry-run=server', { input: yaml([at('one')]) });
  assert.match(r.out, /configmap\/two pruned \(server dry run\)/);
  assert.match(await apply([at('one'), at('ignored', { app: 'mail' })], ' --prune -l app=shop'), /^configmap\/one unchanged\nconfigmap\/two pruned\n$/);
  const left = (await s.get('configmaps')).items.map((i) => i.metadata.name);
  assert.deepEqual(['byhand', 'one', 'other', 'two', 'ignored'].map((n) => left.includes(n)), [true, true, true, false, false]);
  // kubectl's own apply made it: it is pruned by ours, and the reverse.
  await s.apply(at('theirs'));
  assert.match(await apply([at('one')], ' --prune -l app=shop --prune-allowlist core/v1/ConfigMap'), /theirs pruned/);
  await apply([at('ours')]);
  assert.match(await s.apply(at('one'), '--prune -l app=shop --prune-allowlist=core/v1/ConfigMap'), /ours pruned/);
  for (const [more, words] of [['--prune', /prune which objects\?/], ['--all', /--all is for --prune only/], ['--prune --all --applyset x', /leave out --selector, --all/],
    ['--prune --all --prune-allowlist Pod', /GROUP\/VERSION\/KIND/], ['--prune -l app=shop --dry-run=client', /--dry-run=server/]]) {
    r = await atoll(`apply -f - ${more}`, { input: yaml(at('one')) });
    assert.deepEqual([r.code, words.test(r.err)], [2, true], `${more}: ${r.err}`);
  }
});

it('an apply set knows its members by the standard\'s labels, over kinds and namespaces', async () => {
  await s.k('create namespace team');
  const inTeam = (o) => ({ ...o, metadata: { ...o.metadata, namespace: 'team' } });
  const all = [configMap('s1', { a: '1' }), inTeam(configMap('s2', { a: '1' })), site('s3'), deployment('s4')];
  assert.match(await apply(all, ' --prune --applyset shop'), /s1 created[\s\S]*s4 created/);
  const parent = await s.get('secret shop');
  const id = parent.metadata.labels['applyset.kubernetes.io/id'];
  assert.equal(parent.metadata.annotations['applyset.kubernetes.io/contains-group-kinds'], 'ConfigMap,Deployment.atoll.dev,Site.atoll.dev');
  assert.equal(parent.metadata.annotations['applyset.kubernetes.io/additional-namespaces'], 'team');
  assert.equal((await s.get('site s3')).metadata.labels['applyset.kubernetes.io/part-of'], id);
  // The same name has the same id with kubectl, and each leaves the other's sets alone.
  const kube = await run(KUBECTL, ['apply', '-f', '-', '--prune', '--applyset=theirs', '-n', 'default'], { env: { ...env, KUBECTL_APPLYSET: 'true' }, input: yaml(configMap('k1', {})) });
  assert.equal(kube.code, 0, kube.err);
  let r = await atoll('apply -f - --prune --applyset theirs', { input: yaml(configMap('k1', {})) });
  assert.deepEqual([r.code, /belongs to another tool \(kubectl/.test(r.err)], [5, true], r.err);
  r = await atoll('apply -f - --prune --applyset configmap/s1', { input: yaml(configMap('x', {})) });
  assert.deepEqual([r.code, /keeps no apply set/.test(r.err)], [5, true], r.err);
  const fewer = [configMap('s1', { a: '2' })];
  r = await plan(fewer, ' --prune --applyset shop');
  assert.match(r.out, /1 to change, 3 to delete/);
  r = await atoll('apply -f - --prune --applyset shop', { input: yaml(fewer) });
  assert.match(r.out, /s1 configured/);
  for (const ref of ['configmap/s2', 'site.atoll.dev/s3', 'deployment.atoll.dev/s4']) assert.match(r.out, new RegExp(`${ref} pruned`));
  const after = await s.get('secret shop');
  assert.equal(after.metadata.annotations['applyset.kubernetes.io/contains-group-kinds'], 'ConfigMap');
  assert.equal(after.metadata.annotations['applyset.kubernetes.io/additional-namespaces'], '');
  assert.match(await apply(fewer, ' --prune --applyset shop'), /^configmap\/s1 unchanged\n$/);
});
