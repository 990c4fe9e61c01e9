// edit, events and auth against a live server, with editors that are scripts.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, deployment, Fleet, KUBECTL, run, site, yaml } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const s = await fleet.server();
const env = { KUBECONFIG: s.kubeconfig, HOME: await fleet.dir('atoll-home'), PATH: process.env.PATH, NO_COLOR: '1', TMPDIR: await fleet.dir('atoll-tmp') };
const atoll = (args, more = {}) => run(ATOLL, Array.isArray(args) ? args : args.split(' '), { env: { ...env, ...more } });
const editor = async (script) => ({ EDITOR: `sh ${await fleet.file('editor.sh', script)}` });
const spec = async (name) => (await s.get(`deployment ${name}`)).spec;

it('edit changes an object by whatever editor is named', async () => {
  await s.apply(deployment('app', { replicas: 2 }));
  let r = await atoll('edit deployment app', await editor('sed -i "s/replicas: 2/replicas: 7/" "$1"'));
  assert.deepEqual([r.code, r.out], [0, 'deployment.atoll.dev/app edited\n'], r.err);
  assert.equal((await spec('app')).replicas, 7);
  r = await atoll('edit deployment/app -o json', await editor('sed -i "s/\\"replicas\\": 7/\\"replicas\\": 1/" "$1"'));
  assert.equal((await spec('app')).replicas, 1, r.err);
  for (const script of ['true', ': > "$1"', 'printf "# only a comment\\n" > "$1"', 'echo "# more" >> "$1"']) {
    r = await atoll('edit deployment app', await editor(script));
    assert.deepEqual([r.code, r.out], [0, 'deployment.atoll.dev/app is not changed\n'], `${script}: ${r.err}`);
  }
  r = await atoll('edit deployment app', { EDITOR: '/no/such/editor', VISUAL: '' });
  assert.deepEqual([r.code, /name one in \$EDITOR/.test(r.err)], [1, true], r.err);
  r = await atoll('edit deployment nope', await editor('true'));
  assert.equal(r.code, 4);
});

it('what is refused is opened again with what is wrong, and a text is never lost', async () => {
  const seen = path.join(env.TMPDIR, 'seen');
  const rounds = `n=$(cat ${seen}.n 2> /dev/null || echo 0); n=$((n + 1)); echo $n > ${seen}.n; cp "$1" ${seen}.$n\n`;
  let r = await atoll('edit deployment app', await editor(`${rounds}
    case $n in
    1) sed -i 's/replicas: 1/replicas: [/' "$1" ;;
    2) sed -i 's/replicas: \\[/replicas: -4/' "$1" ;;
    3) sed -i 's/replicas: -4/replicsa: 4/' "$1" ;;
    4) sed -i 's/replicsa: 4/replicas: 4/; s/name: app/name: other/' "$1" ;;
    *) sed -i 's/name: other/name: app/' "$1" ;;
    esac`));
  assert.deepEqual([r.code, r.out], [0, 'deployment.atoll.dev/app edited\n'], r.err);
  assert.equal((await spec('app')).replicas, 4);
  const text = (n) => readFile(`${seen}.${n}`, 'utf8');
  assert.match(await text(2), /^# error: line \d+/m);
  assert.match(await text(3), /^# error: spec\.replicas: .*0/m);
  assert.match(await text(4), /^# error: .*replicsa/m);
  assert.match(await text(5), /^# error: metadata\.name cannot be changed here: it is "app"/m);
  r = await atoll('edit deployment app', await editor("sed -i 's/replicas: 4/replicas: many/' \"$1\""));
  assert.equal(r.code, 2);
  const [, kept] = /your text is kept in (\S+)/.exec(r.err);
  assert.match(await readFile(kept, 'utf8'), /replicas: many/);
  assert.equal((await spec('app')).replicas, 4);
});

it('what others change meanwhile is kept; where both change one field, the editor opens again', async () => {
  const kubectl = `KUBECONFIG=${s.kubeconfig} ${KUBECTL} patch deployment.atoll.dev app --type=merge -p`;
  let r = await atoll('edit deployment app', await editor(`${kubectl} '{"metadata":{"labels":{"by":"other"}}}' > /dev/null\nsed -i 's/replicas: 4/replicas: 5/' "$1"`));
  assert.equal(r.code, 0, r.err);
  let now = await s.get('deployment app');
  assert.deepEqual([now.spec.replicas, now.metadata.labels.by], [5, 'other']);
  const seen = path.join(env.TMPDIR, 'conflict');
  r = await atoll('edit deployment app', await editor(`if [ ! -e ${seen} ]; then
      ${kubectl} '{"spec":{"replicas":8},"metadata":{"labels":{"by":"third"}}}' > /dev/null
      sed -i 's/replicas: 5/replicas: 6/' "$1"
    fi; cp "$1" ${seen}`));
  assert.equal(r.code, 0, r.err);
  assert.match(await readFile(seen, 'utf8'), /# error: spec\.replicas was changed by somebody else meanwhile; it is now 8/);
  now = await s.get('deployment app');
  assert.deepEqual([now.spec.replicas, now.metadata.labels.by], [6, 'third']);
});

it('Ctrl-C in an editor is the editor\'s: what was typed is not lost', async () => {
  // The terminal sends it to all of the foreground: so does this editor.
  const r = await run('script', ['-qec', `${ATOLL} edit deployment app`, '/dev/null'], { env: { ...env, ...(await editor(`trap : INT; kill -INT 0; sed -i 's/replicas: 6/replicas: 3/' "$1"`)) } });
  assert.match(r.out, /app edited/);
  assert.equal((await spec('app')).replicas, 3);
});

it('edit leaves no file behind, not of Secrets either', async () => {
  await s.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'pw' }, stringData: { a: 'b' } });
  const where = path.join(env.TMPDIR, 'where');
  const r = await atoll('edit secret pw', await editor(`echo "$1" > ${where}; stat -c %a "$1" "$(dirname "$1")" >> ${where}; sed -i 's/Yg==/Yw==/' "$1"`));
  assert.equal(r.code, 0, r.err);
  const [file, mode, folder] = (await readFile(where, 'utf8')).trim().split('\n');
  assert.deepEqual([mode, folder, existsSync(file), existsSync(path.dirname(file))], ['600', '700', false, false]);
  assert.equal((await s.get('secret pw')).data.a, 'Yw==');
});

it('events: of all, of one object, by type, and as they come', async () => {
  const event = (name, type, object, last) => ({ apiVersion: 'v1', kind: 'Event', metadata: { name }, type, reason: 'Tested', message: `message of ${name}`, count: 3, lastTimestamp: last, firstTimestamp: last, involvedObject: object });
  const app = { apiVersion: 'atoll.dev/v1', kind: 'Deployment', name: 'app', namespace: 'default' };
  for (const e of [event('late', 'Warning', app, '2026-01-02T00:00:00Z'), event('early', 'Normal', { ...app, name: 'other' }, '2026-01-01T00:00:00Z')]) await s.k('create -f -', { input: yaml(e) });
  let r = await atoll('events');
  assert.match(r.out, /^LAST SEEN +TYPE +REASON +OBJECT +MESSAGE\n/);
  const at = (words) => r.out.search(words);
  assert.ok(at(/message of early/) > 0 && at(/message of early/) < at(/message of late/), r.out);
  assert.match(r.out, /\d+d\S* \(x3\) +Warning +Tested +deployment\/app +message of late/);
  r = await atoll('events --for deployment/app');
  assert.match(r.out, /message of late/);
  assert.doesNotMatch(r.out, /message of early/);
  r = await atoll('events --types Normal -o name');
  assert.match(r.out, /event\/early/);
  assert.doesNotMatch(r.out, /late/);
  const watch = fleet.start('atoll events -w', ['events', '-w', '--for', 'deployment/app', '--no-headers'], { env });
  await watch.line(/message of late/);
  await s.k('create -f -', { input: yaml(event('newest', 'Normal', app, '2026-01-03T00:00:00Z')) });
  await watch.line(/message of newest/);
  assert.equal((await watch.stop({ signal: 'SIGINT' })).code, 0);
  r = await atoll('events -n kube-system');
  assert.deepEqual([r.code, r.out, r.err], [0, '', 'No events found in namespace kube-system.\n']);
});

it('auth answers as kubectl auth does', async () => {
  for (const args of ['auth can-i create deployments', 'auth can-i delete nodes --as eve', 'auth can-i list sites --as eve --as-group atoll:viewers', 'auth can-i get /metrics --as eve',
    'auth can-i get secrets --as eve --as-group atoll:viewers', 'auth can-i create deploy --subresource scale', 'auth can-i * *', 'auth can-i get pods --as eve']) {
    const [ours, theirs] = await Promise.all([atoll(args), run(KUBECTL, args.split(' '), { env })]);
    assert.deepEqual([ours.code, ours.out.split(' ')[0].trim()], [theirs.code, theirs.out.split(' ')[0].trim()], args);
  }
  assert.deepEqual((await atoll('auth can-i delete nodes --as eve -q')).out, '');
  const rows = (r) => r.out.trim().split('\n').slice(1).map((l) => l.trim().split(/ {2,}/).join('|')).sort();
  const list = 'auth can-i --list --as eve --as-group atoll:viewers';
  assert.deepEqual(rows(await atoll(list)), rows(await run(KUBECTL, list.split(' '), { env })));
  const me = await atoll('auth whoami --as eve --as-group ops');
  assert.match(me.out, /Username +eve\nGroups +\[ops system:authenticated\]/);
  assert.equal(JSON.parse((await atoll('auth whoami -o json')).out).status.userInfo.username, 'admin');
  assert.match((await atoll('auth can-i')).err, /may I what\?/);
  assert.match((await atoll('auth whomai')).err, /did you mean whoami/);
});

it('errors say what to do next: a right that is missing, a name that is not there, no server', async () => {
  const r = await atoll('get secrets --as eve');
  assert.equal(r.code, 3);
  assert.match(r.err, /User "eve" cannot list resource "secrets"/);
  assert.match(r.err, /hint: the right that is missing: list resource "secrets".* in the namespace "default"\. atoll auth can-i --list .*RoleBinding/);
  const absent = await atoll('describe deployment nope -n team');
  assert.match(absent.err, /"nope" not found\nhint: atoll get deployments -n team lists those there are/);
  const config = await fleet.file('config', 'current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]\n');
  const down = await atoll('get sites', { KUBECONFIG: config });
  assert.deepEqual([down.code, /hint: does a server run at https:\/\/127\.0\.0\.1:1\? atoll dev starts/.test(down.err)], [6, true], down.err);
});

it('get prints what kubectl get prints: templates, columns, order, labels', async () => {
  await s.apply([deployment('b1', { replicas: 10 }, { labels: { tier: 'x' } }), deployment('b2', { replicas: 9 }, { labels: { tier: 'y', 'a.b/c': 'd' } }), deployment('b3', { replicas: 100 })]);
  const same = async (...args) => {
    const [ours, theirs] = await Promise.all([atoll(['get', 'deployments', ...args]), run(KUBECTL, ['get', 'deployments.atoll.dev', ...args], { env })]);
    const words = (text) => text.trimEnd().split('\n').map((l) => l.trimEnd().split(/ {2,}/).join('|')).join('\n');
    assert.deepEqual([ours.code, words(ours.out)], [theirs.code, words(theirs.out)], `${args.join(' ')}\n${ours.err}${theirs.err}`);
    return ours.out;
  };
  const PATHS = ['{.items[*].metadata.name}', '{range .items[*]}{.metadata.name}{"\\t"}{.spec.replicas}{"\\n"}{end}', '{.items[0].metadata.name}', '{.items[-1].metadata.name}', '{.items[0:2].metadata.name}',
    '{.items[?(@.spec.replicas>9)].metadata.name}', '{.items[?(@.metadata.labels.tier=="x")].metadata.name}', "{.items[*].metadata.labels['a\\.b/c']}", '{range .items[?(@.spec.replicas==10)]}[{.metadata.name}]{end}',
    'names: {.items[*].metadata.name}!', '{.items[?(@.metadata.labels.tier)].metadata.name}', '{$.items[1].kind}', '{range .items[*]}{range .spec.template.spec.command[*]}{@}{","}{end};{end}'];
  await Promise.all(PATHS.map((p) => same('-o', `jsonpath=${p}`)));
  await same('-o', 'custom-columns=NAME:.metadata.name,COPIES:.spec.replicas,TIER:.metadata.labels.tier');
  await same('-o', 'custom-columns=A:.metadata.name', '--no-headers');
  await same('--sort-by', '.spec.replicas', '-o', 'name');
  await same('--sort-by', '{.metadata.name}', '-o', 'custom-columns=N:.metadata.name');
  assert.match(await same('--sort-by=.spec.replicas', '-o', 'custom-columns=N:.metadata.name'), /b2\nb1\nb3/);
  assert.deepEqual((await atoll('get deployments b1 b2 --no-headers -L tier --show-labels')).out.split('\n').filter(Boolean).map((l) => l.split(/ +/).slice(-2)), [['x', 'tier=x'], ['y', 'a.b/c=d,tier=y']]);
  assert.match((await atoll('get deployments --sort-by .spec.replicas')).out, /^NAME[\s\S]*^b2 [\s\S]*^b1 [\s\S]*^b3 /m);
  for (const bad of ['jsonpath={.a', 'jsonpath={range .items[*]}x', 'jsonpath={.items[?(x)]}', 'custom-columns=', 'custom-columns=A', 'jsonpath={.items[x]}']) {
    assert.equal((await atoll(['get', 'deployments', '-o', bad])).code, 2, bad);
  }
});

it('delete leaves, waits for or takes along what is owned, as it is told', async () => {
  const owner = await s.get('configmap owner').catch(async () => { await s.k('create configmap owner'); return s.get('configmap owner'); });
  const child = (name) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'owner', uid: owner.metadata.uid }] } });
  await s.apply(child('left'));
  let r = await atoll('delete configmap owner --cascade orphan --grace-period 0');
  assert.equal(r.code, 0, r.err);
  const left = await s.get('configmap left');
  assert.deepEqual(left.metadata.ownerReferences ?? [], []);
  r = await atoll('delete configmap left --cascade sometimes');
  assert.deepEqual([r.code, /--cascade is background, foreground or orphan/.test(r.err)], [2, true]);
});

it('wait for what is not there yet', async () => {
  const waiting = fleet.start('atoll wait', ['wait', 'configmap/soon', '--for=create', '--timeout=20s'], { env });
  await s.k('create configmap soon');
  await waiting.line(/configmap\/soon condition met/);
  const r = await atoll('wait configmap/never --for=create --timeout=1s');
  assert.deepEqual([r.code, /waiting for the making of configmap\/never: not there yet/.test(r.err)], [7, true], r.err);
});

it('label, annotate, patch and cordon change what kubectl would change', async () => {
  const marks = async (name) => { const { labels, annotations } = (await s.get(`configmap ${name}`)).metadata; return [labels, annotations]; };
  for (const name of ['ours', 'theirs']) await s.k(`create configmap ${name}`);
  for (const words of ['label configmap NAME a=b c=d', 'label configmap/NAME c- a=e --overwrite', 'label configmap NAME a=e', 'annotate configmap NAME note=x=y empty=', 'annotate configmap/NAME empty-', 'patch configmap NAME -p {"data":{"k":"v","w":"x"}}', 'patch configmap/NAME --type=merge -p {"data":{"w":null}}', 'patch configmap NAME --type=json -p [{"op":"add","path":"/data/n","value":"1"}]']) {
    const [a, b] = [await atoll(words.replace('NAME', 'ours')), await s.kubectl(words.replace('NAME', 'theirs'))];
    assert.deepEqual([a.code, b.code], [0, 0], `${words}: ${a.err}${b.err}`);
  }
  assert.deepEqual(await marks('ours'), await marks('theirs'));
  assert.deepEqual(await marks('ours'), [{ a: 'e' }, { note: 'x=y' }]);
  assert.deepEqual((await s.get('configmap ours')).data, { k: 'v', n: '1' });
  const refused = [['annotate configmap ours note=z', /annotation note is already "x=y"; --overwrite changes it/], ['label configmap ours', /which label\?|takes/], ['label configmap x=y', /which configmaps\? Give names, --selector or --all/], ['patch configmap ours -p }{', /--patch: line 1/], ['patch configmap ours', /what is to change\?/], ['patch configmap ours --type=odd -p {}', /none of strategic, merge, json/], ['patch configmap ours --type=json -p [{"op":"test","path":"/data/n","value":"2"}]', /test failed/], ['cordon never', /not found/]];
  for (const [words, why] of refused) {
    const r = await atoll(words);
    assert.notEqual(r.code, 0, words);
    assert.match(r.err, why, words);
  }
  await atoll('label configmap -l a=e b=f');
  assert.deepEqual((await marks('theirs'))[0], { a: 'e', b: 'f' });
  await s.apply([site('here'), { apiVersion: 'atoll.dev/v1', kind: 'Node', metadata: { name: 'n1' }, spec: { site: 'here' } }]);
  for (const [words, on] of [['cordon n1', true], ['uncordon node/n1', false]]) {
    assert.equal((await atoll(words)).code, 0);
    assert.equal((await s.get('nodes.atoll.dev n1')).spec.unschedulable ?? false, on);
  }
});
