// Stock kubectl against `atoll server`: what the documentation promises works with nothing but kubectl.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { ATOLL, configMap, deployment, eventually, Fleet, KUBECTL, run, site, yaml } from '../e2e/lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;
let namespaces = 0;

before(async () => {
  s = await fleet.server();
});

// A room of its own for a test.
async function namespace() {
  namespaces += 1;
  const ns = `t${namespaces}`;
  await s.k(`create namespace ${ns}`);
  return ns;
}

const lines = (text) => text.trim().split('\n');
const cells = (line) => line.trim().split(/ {2,}/);

it('kubectl is one that is supported', async () => {
  const { clientVersion } = JSON.parse((await run(KUBECTL, ['version', '--client', '-o', 'json'])).out);
  assert.ok(Number.parseInt(clientVersion.minor, 10) >= 29, clientVersion.gitVersion);
});

it('version, health and discovery answer', async () => {
  const version = JSON.parse(await s.k('version -o json'));
  assert.match(version.serverVersion.gitVersion, /^v1\.\d+\.\d+\+atoll/);
  assert.equal((await s.k('get --raw /healthz')).trim(), 'ok');
  assert.equal((await s.k('get --raw /readyz')).trim(), 'ok');
  assert.equal(await s.k('get --raw /readyz?verbose'), '[+]ping ok\n[+]store ok\nreadyz check passed\n');
  assert.equal(await s.k('get --raw /livez?verbose'), '[+]ping ok\nlivez check passed\n');
  assert.equal(await s.k('get --raw /healthz/ping'), 'ok');
  const resources = await s.k('api-resources --no-headers');
  assert.match(resources, /^sites\s+atoll\.dev\/v1\s+false\s+Site$/m);
  assert.match(resources, /^deployments\s+deploy\s+atoll\.dev\/v1\s+true\s+Deployment$/m);
  assert.match(resources, /^configmaps\s+cm\s+v1\s+true\s+ConfigMap$/m);
  assert.match(await s.k('api-versions'), /^atoll\.dev\/v1$/m);
});

it('apply creates, changes and leaves alone', async () => {
  const ns = await namespace();
  const d = deployment('app', {}, { labels: { app: 'a' } });
  const put = (object) => s.apply(object, ['-n', ns]);
  assert.equal(await put(d), 'deployment.atoll.dev/app created\n');
  assert.equal(await put(d), 'deployment.atoll.dev/app unchanged\n');
  d.spec.replicas = 3;
  d.metadata.labels.tier = 'x';
  assert.equal(await put(d), 'deployment.atoll.dev/app configured\n');
  assert.equal(await put(d), 'deployment.atoll.dev/app unchanged\n');
  delete d.metadata.labels.tier; // what is taken out of the manifest is taken out of the object
  delete d.spec.replicas;
  assert.equal(await put(d), 'deployment.atoll.dev/app configured\n');
  const live = await s.get(`deploy app -n ${ns}`);
  assert.deepEqual(live.metadata.labels, { app: 'a' });
  assert.equal(live.spec.replicas, 1, 'the default came back');
  assert.equal(live.spec.template.spec.restartPolicy, 'Always');
  assert.ok(live.metadata.generation >= 3);
  assert.match(live.metadata.uid, /^[0-9a-f-]{36}$/);
});

it('apply --dry-run=server and diff change nothing', async () => {
  const ns = await namespace();
  const d = deployment('app');
  const dry = await s.apply(d, ['-n', ns, '--dry-run=server']);
  assert.equal(dry, 'deployment.atoll.dev/app created (server dry run)\n');
  await s.kFails(`get deploy app -n ${ns}`, /NotFound/);
  await s.apply(d, ['-n', ns]);
  const before = (await s.get(`deploy app -n ${ns}`)).metadata.generation;
  assert.equal((await s.kubectl(['diff', '-n', ns, '-f', '-'], { input: yaml(d) })).code, 0);
  d.spec.replicas = 4;
  const diff = await s.kubectl(['diff', '-n', ns, '-f', '-'], { input: yaml(d) });
  assert.equal(diff.code, 1, diff.err);
  assert.match(diff.out, /^-\s+replicas: 2$/m);
  assert.match(diff.out, /^\+\s+replicas: 4$/m);
  assert.equal((await s.get(`deploy app -n ${ns}`)).metadata.generation, before);
});

it('get prints tables, wide, all namespaces, selections and every output format', async () => {
  const ns = await namespace();
  await s.apply([deployment('one', {}, { labels: { app: 'a' } }), deployment('two', { replicas: 0 }, { labels: { app: 'b', tier: 'gpu' } })], ['-n', ns]);
  const table = lines(await s.k(`get deployments -n ${ns}`));
  assert.deepEqual(cells(table[0]), ['NAME', 'READY', 'REPLICAS', 'UPDATED', 'MODEL', 'AGE']);
  assert.match(table[2], /^two\s+\d*\s+0\s/);
  assert.match(table[1], /\d+s$/);
  assert.deepEqual(cells(lines(await s.k(`get deploy -n ${ns} -o wide`))[0]), ['NAME', 'READY', 'REPLICAS', 'UPDATED', 'MODEL', 'AVAILABLE', 'DATA', 'AGE']);
  assert.match(await s.k(`get deploy -n ${ns} --show-labels`), /app=b,tier=gpu/);
  assert.match(await s.k(`get deploy -n ${ns} -L tier`), /gpu$/m);
  assert.match(await s.k('get deploy -A'), new RegExp(`^${ns}\\s+one\\s`, 'm'));
  assert.equal(await s.k(`get deploy -n ${ns} -l app=a -o name`), 'deployment.atoll.dev/one\n');
  assert.equal(await s.k(['get', 'deploy', '-n', ns, '-l', 'app in (a,b),!tier', '-o', 'name']), 'deployment.atoll.dev/one\n');
  assert.equal(await s.k(`get deploy -n ${ns} --field-selector metadata.name=two -o name`), 'deployment.atoll.dev/two\n');
  assert.equal(await s.k(['get', 'deploy', 'one', '-n', ns, '-o', 'jsonpath={.spec.replicas}']), '2');
  assert.match(await s.k(`get deploy one -n ${ns} -o yaml`), /^kind: Deployment$/m);
  assert.equal((await s.get(`deploy -n ${ns}`)).items.length, 2);
  assert.match(await s.k(`get deploy -n ${ns} -o custom-columns=N:.metadata.name,R:.spec.replicas`), /^two\s+0$/m);
  assert.deepEqual(lines(await s.k(`get deploy -n ${ns} --sort-by=.spec.replicas --no-headers`)).map((l) => l.split(' ')[0]), ['two', 'one']);
  assert.match(await s.k(`get atoll -n ${ns}`), /deployment\.atoll\.dev\/one/);
  assert.match(await s.k(`get deploy/one deploy/two -n ${ns}`), /two/);
  assert.match((await s.kubectl(`get jobs -n ${ns}`)).err, /No resources found/);
  await s.kFails(`get deploy none -n ${ns}`, /Error from server \(NotFound\): deployments\.atoll\.dev "none" not found/);
  await s.kFails('get gizmos', /the server doesn't have a resource type "gizmos"/);
  await s.kFails(['get', 'deploy', '-l', 'a=b=c'], /unable to parse/i);
});

it('lists arrive in chunks', async () => {
  const ns = await namespace();
  await s.apply(Array.from({ length: 25 }, (_, i) => configMap(`c${String(i).padStart(2, '0')}`)), ['-n', ns]);
  const names = lines(await s.k(`get cm -n ${ns} --chunk-size=10 -o name`));
  assert.equal(names.length, 25);
  assert.equal(new Set(names).size, 25);
});

it('create, replace and edit', async () => {
  const ns = await namespace();
  const put = (verb, object, ...more) => s.kubectl([...verb.split(' '), '-n', ns, '-f', '-', ...more], { input: yaml(object) });
  assert.equal((await put('create', deployment('app'))).out, 'deployment.atoll.dev/app created\n');
  assert.match((await put('create', deployment('app'))).err, /AlreadyExists.*deployments\.atoll\.dev "app" already exists/);
  const generated = configMap('x');
  delete generated.metadata.name;
  generated.metadata.generateName = 'gen-';
  assert.match((await put('create', generated)).out, /^configmap\/gen-[a-z0-9]{5} created$/m);

  const live = await s.get(`deploy app -n ${ns}`);
  live.spec.replicas = 5;
  assert.equal((await put('replace', live)).out, 'deployment.atoll.dev/app replaced\n');
  live.spec.replicas = 6; // resourceVersion is the old one now
  assert.match((await put('replace', live)).err, /Conflict|the object has been modified/);
  assert.match((await put('replace --force', deployment('app', { replicas: 1 }))).out, /replaced/);
  assert.equal((await s.get(`deploy app -n ${ns}`)).spec.replicas, 1);

  const editor = await fleet.file('editor', '#!/bin/sh\nsed -i "s/replicas: 1$/replicas: 7/" "$1"\n');
  await run('chmod', ['+x', editor]);
  assert.equal(await s.k(`edit deploy app -n ${ns}`, { env: { KUBE_EDITOR: editor } }), 'deployment.atoll.dev/app edited\n');
  assert.equal((await s.get(`deploy app -n ${ns}`)).spec.replicas, 7);
});

it('the imperative creators, whose bodies are protobuf', async () => {
  const ns = await namespace();
  assert.equal((await s.get(`ns ${ns}`)).metadata.name, ns);
  assert.equal(await s.k(`create configmap c -n ${ns} --from-literal=a=b`), 'configmap/c created\n');
  assert.deepEqual((await s.get(`cm c -n ${ns}`)).data, { a: 'b' });
  assert.equal(await s.k(`create secret generic x -n ${ns} --from-literal=p=hello`), 'secret/x created\n');
  assert.deepEqual((await s.get(`secret x -n ${ns}`)).data, { p: 'aGVsbG8=' });
});

it('label, annotate and patch', async () => {
  const ns = await namespace();
  await s.apply(deployment('app'), ['-n', ns]);
  assert.equal(await s.k(`label deploy app -n ${ns} zone=a`), 'deployment.atoll.dev/app labeled\n');
  await s.kFails(`label deploy app -n ${ns} zone=b`, /already has a value/);
  assert.match(await s.k(`label deploy app -n ${ns} zone=b --overwrite`), /labeled/);
  assert.match(await s.k(`label deploy app -n ${ns} zone-`), /unlabeled/);
  assert.match(await s.k(['annotate', 'deploy', 'app', '-n', ns, 'why=because of this']), /annotated/);
  assert.match(await s.k(['patch', 'deploy', 'app', '-n', ns, '--type=merge', '-p', '{"spec":{"replicas":4}}']), /patched/);
  assert.match(await s.k(['patch', 'deploy', 'app', '-n', ns, '--type=merge', '-p', '{"spec":{"replicas":4}}']), /patched \(no change\)/);
  assert.match(await s.k(['patch', 'deploy', 'app', '-n', ns, '--type=json', '-p', '[{"op":"replace","path":"/spec/replicas","value":3}]']), /patched/);
  await s.kFails(['patch', 'deploy', 'app', '-n', ns, '--type=json', '-p', '[{"op":"test","path":"/spec/replicas","value":9}]'], /[Ii]nvalid|test/);
  // Strategic is kubectl's default: taken as a merge patch, unless it says what only a strategic one can.
  assert.match(await s.k(['patch', 'deploy', 'app', '-n', ns, '-p', '{"spec":{"revisionHistoryLimit":2}}']), /patched/);
  await s.kFails(['patch', 'deploy', 'app', '-n', ns, '-p', '{"spec":{"$patch":"replace"}}'], /strategic|media type/);
  assert.match(await s.k(['patch', 'cm', 'nothing', '-n', ns, '--type=merge', '-p', '{}']).catch((e) => e.message), /NotFound/);
  assert.match(await s.k(['patch', 'ns', ns, '-p', '{"metadata":{"labels":{"a":"b"}}}']), /patched/);
  const live = await s.get(`deploy app -n ${ns}`);
  assert.equal(live.spec.replicas, 3);
  assert.equal(live.metadata.annotations.why, 'because of this');
  assert.deepEqual(live.metadata.labels ?? {}, {});
});

it('many patches at once all succeed', async () => {
  const ns = await namespace();
  await s.apply(configMap('c'), ['-n', ns]);
  await Promise.all(Array.from({ length: 12 }, (_, i) => s.k(['patch', 'cm', 'c', '-n', ns, '--type=merge', '-p', `{"data":{"k${i}":"v"}}`])));
  assert.equal(Object.keys((await s.get(`cm c -n ${ns}`)).data).length, 12);
});

it('scale goes through the scale subresource', async () => {
  const ns = await namespace();
  await s.apply(deployment('app'), ['-n', ns]);
  assert.equal(await s.k(`scale deploy/app --replicas=5 -n ${ns}`), 'deployment.atoll.dev/app scaled\n');
  assert.equal((await s.get(`deploy app -n ${ns}`)).spec.replicas, 5);
  assert.match(await s.k(`scale deploy/app --current-replicas=5 --replicas=1 -n ${ns}`), /scaled/);
  await s.kFails(`scale deploy/app --current-replicas=5 --replicas=2 -n ${ns}`, /Expected replicas to be 5, was 1/);
  await s.kFails(`scale deploy/app --replicas=100001 -n ${ns}`, /spec\.replicas/);
  const scale = JSON.parse(await s.k(`get --raw /apis/atoll.dev/v1/namespaces/${ns}/deployments/app/scale`));
  assert.equal(scale.kind, 'Scale');
  assert.equal(scale.spec.replicas, 1);
});

it('status is written through its own door only', async () => {
  await s.apply(site('st'));
  await s.k(['patch', 'site', 'st', '--type=merge', '-p', '{"status":{"conditions":[{"type":"Seen","status":"True"}]}}']);
  assert.equal((await s.get('site st')).status?.conditions, undefined);
  await s.k(['patch', 'site', 'st', '--subresource=status', '--type=merge', '-p', '{"status":{"conditions":[{"type":"Seen","status":"True"}]},"spec":{"class":"hpc"}}']);
  const live = await s.get('site st');
  assert.equal(live.status.conditions[0].type, 'Seen');
  assert.equal(live.spec.class, 'edge');
  assert.equal(live.metadata.generation, 1);
});

it('describe shows the object and its events', async () => {
  const ns = await namespace();
  await s.apply(deployment('app'), ['-n', ns]);
  const uid = (await s.get(`deploy app -n ${ns}`)).metadata.uid;
  await s.apply(
    {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: 'app.1', namespace: ns },
      involvedObject: { apiVersion: 'atoll.dev/v1', kind: 'Deployment', name: 'app', namespace: ns, uid },
      reason: 'Tested',
      message: 'a test was here',
      type: 'Normal',
      count: 1,
      lastTimestamp: '2026-01-02T03:04:05Z',
      source: { component: 'test' },
    },
    ['-n', ns],
  );
  const text = await s.k(`describe deploy app -n ${ns}`);
  assert.match(text, /^Name:\s+app$/m);
  assert.match(text, /^Spec:/m);
  assert.match(text, /Replicas:\s+2/);
  assert.match(text, /Tested\s.*a test was here/);
  assert.match(await s.k(`get events -n ${ns}`), /Tested/);
  assert.match(await s.k('describe site'), /./);
  assert.match(await s.k(`describe ns ${ns}`), new RegExp(`^Name:\\s+${ns}$`, 'm'));
});

it('wait for a condition, a value, a creation and a deletion', async () => {
  const ns = await namespace();
  await s.apply(site('w'));
  const condition = s.k('wait --for=condition=Checked site/w --timeout=30s');
  const created = s.k(`wait --for=create cm/late -n ${ns} --timeout=30s`);
  await s.apply(deployment('app'), ['-n', ns]);
  // The controller itself counts the copies it made.
  assert.match(await s.k(['wait', '--for=jsonpath={.status.replicas}=2', 'deploy/app', '-n', ns, '--timeout=30s']), /condition met/);
  await s.apply(configMap('late'), ['-n', ns]);
  assert.match(await created, /condition met/);
  await s.k(['patch', 'site', 'w', '--subresource=status', '--type=merge', '-p', '{"status":{"conditions":[{"type":"Checked","status":"True"}]}}']);
  assert.match(await condition, /site\.atoll\.dev\/w condition met/);
  await s.kFails('wait --for=condition=Never site/w --timeout=1s', /timed out waiting/);
  const gone = s.k(`wait --for=delete cm/late -n ${ns} --timeout=30s`);
  await s.k(`delete cm late -n ${ns}`);
  await gone;
});

it('get -w follows changes, from a list and for one object', async () => {
  const ns = await namespace();
  await s.apply(configMap('a', { k: '1' }), ['-n', ns]);
  const all = await s.kubectlStart(`get cm -n ${ns} -w -o name`);
  const one = await s.kubectlStart(`get cm a -n ${ns} --watch-only -o jsonpath={.data.k}{"\\n"}`);
  const events = await s.kubectlStart(`get cm -n ${ns} -w --output-watch-events`);
  await all.line(/configmap\/a/);
  await events.line(/ADDED\s+a/);
  await s.apply(configMap('b'), ['-n', ns]);
  await all.line(/configmap\/b/);
  await events.line(/ADDED\s+b/);
  // --watch-only says nothing until something happens: change until it does.
  let n = 1;
  await eventually('a change is seen', async () => {
    n += 1;
    await s.k(['patch', 'cm', 'a', '-n', ns, '--type=merge', '-p', `{"data":{"k":"v${n}"}}`]);
    return /^v\d/m.test(one.out);
  });
  await events.line(/MODIFIED\s+a/);
  await s.k(`delete cm b -n ${ns}`);
  await events.line(/DELETED\s+b/);
  for (const proc of [all, one, events]) await proc.kill('SIGKILL');
});

it('get -w -l: leaving the selection is a deletion', async () => {
  const ns = await namespace();
  await s.apply([configMap('in', {}, { labels: { sel: 'yes' } }), configMap('out', {}, { labels: { sel: 'no' } })], ['-n', ns]);
  const watch = await s.kubectlStart(`get cm -n ${ns} -l sel=yes -w --output-watch-events`);
  await watch.line(/ADDED\s+in/);
  await s.k(`label cm in -n ${ns} sel=no --overwrite`);
  await watch.line(/DELETED\s+in/);
  await s.k(`label cm out -n ${ns} sel=yes --overwrite`);
  await watch.line(/ADDED\s+out/);
  await watch.kill('SIGKILL');
});

it('get --raw streams a watch', async () => {
  const ns = await namespace();
  const raw = await s.kubectlStart(`get --raw /api/v1/namespaces/${ns}/configmaps?watch=1`);
  await s.apply(configMap('a'), ['-n', ns]);
  const [line] = await raw.line(/^\{.*"ADDED".*\}$/m);
  assert.equal(JSON.parse(line).object.metadata.name, 'a');
  await raw.kill('SIGKILL');
});

it('delete by name, file, selector and all', async () => {
  const ns = await namespace();
  await s.apply(['a', 'b', 'c', 'd', 'e'].map((n) => configMap(n, {}, { labels: { odd: String('ace'.includes(n)) } })), ['-n', ns]);
  assert.equal(await s.k(`delete cm a -n ${ns}`), 'configmap "a" deleted\n');
  assert.equal(await s.k(['delete', '-n', ns, '-f', '-'], { input: yaml(configMap('b')) }), 'configmap "b" deleted\n');
  assert.equal(await s.k(`delete cm -l odd=true -n ${ns} -o name`), 'configmap/c\nconfigmap/e\n');
  assert.match(await s.k(`delete cm --all -n ${ns}`), /"d" deleted/);
  await s.kFails(`delete cm a -n ${ns}`, /NotFound/);
  assert.equal(await s.k(`delete cm a -n ${ns} --ignore-not-found`), '');
});

it('finalizers hold a deletion until they are gone', async () => {
  const ns = await namespace();
  await s.apply(configMap('held', {}, { finalizers: ['example.com/hold'] }), ['-n', ns]);
  const deleting = s.k(`delete cm held -n ${ns}`);
  const live = await eventually('deletionTimestamp', async () => {
    const o = await s.get(`cm held -n ${ns}`);
    return o.metadata.deletionTimestamp && o;
  });
  assert.deepEqual(live.metadata.finalizers, ['example.com/hold']);
  assert.equal(await s.k(['patch', 'cm', 'held', '-n', ns, '--type=merge', '-p', '{"metadata":{"finalizers":null}}']), 'configmap/held patched\n');
  assert.equal(await deleting, 'configmap "held" deleted\n');
  await s.kFails(`get cm held -n ${ns}`, /NotFound/);
});

it('what an object owns goes with it, unless it is orphaned', async () => {
  const ns = await namespace();
  const owned = async (name, owner) => {
    const { uid } = (await s.get(`cm ${owner} -n ${ns}`)).metadata;
    await s.apply(configMap(name, {}, { ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: owner, uid }] }), ['-n', ns]);
  };
  await s.apply(['p1', 'p2', 'p3'].map((n) => configMap(n)), ['-n', ns]);
  await owned('c1', 'p1');
  await owned('c2', 'p2');
  await owned('c3', 'p3');
  await s.k(`delete cm p1 -n ${ns}`);
  await eventually('c1 is collected', async () => (await s.kubectl(`get cm c1 -n ${ns}`)).code !== 0);
  await s.k(`delete cm p2 -n ${ns} --cascade=orphan`);
  await s.k(`delete cm p3 -n ${ns} --cascade=foreground`);
  await eventually('c3 is collected', async () => (await s.kubectl(`get cm c3 -n ${ns}`)).code !== 0);
  assert.equal((await s.get(`cm c2 -n ${ns}`)).metadata.ownerReferences, undefined);
});

it('a namespace takes its objects with it', async () => {
  const ns = await namespace();
  await s.apply(configMap('a'), ['-n', ns]);
  assert.match(await s.k(`delete ns ${ns}`), /deleted/);
  await s.kFails(`get ns ${ns}`, /NotFound/);
  await s.kFails(['create', '-n', ns, '-f', '-'], /not found|NotFound/, { input: yaml(configMap('b')) });
});

it('apply --prune takes away what a manifest or an ApplySet no longer names', async () => {
  const ns = await namespace();
  const [kept, gone] = [configMap('kept', {}, { labels: { set: 'one' } }), { ...deployment('gone', { replicas: 0 }), metadata: { name: 'gone', labels: { set: 'one' } } }];
  await s.apply([kept, gone], ['-n', ns]);
  const allowed = '--prune-allowlist=atoll.dev/v1/Deployment --prune-allowlist=core/v1/ConfigMap';
  assert.match(await s.apply([kept], `-n ${ns} --prune -l set=one ${allowed}`), /deployment\.atoll\.dev\/gone pruned/);
  const env = { KUBECTL_APPLYSET: 'true' };
  const set = async (objects) => s.k(`apply -n ${ns} --prune --applyset=configmaps/all -f -`, { input: yaml(objects), env });
  await s.k(`delete cm kept -n ${ns}`);
  await set([kept, gone]);
  assert.match(await set([kept]), /deployment\.atoll\.dev\/gone pruned/);
  assert.equal(await s.k(`get cm,deploy -n ${ns} -o name`), 'configmap/all\nconfigmap/kept\n');
});

it('explain documents every field of every kind', async () => {
  const kinds = lines(await s.k('api-resources --verbs=get --no-headers -o name'));
  for (const kind of kinds) {
    const text = await s.k(`explain ${kind} --recursive`);
    assert.match(text, /^KIND:\s+\w+$/m);
    assert.match(text, /^FIELDS:$/m);
    assert.doesNotMatch(text, /<no description>|<Object>\s+<no/);
    assert.doesNotMatch(await s.k(`explain ${kind}`), /<no description>/);
  }
  for (const field of ['deployment.spec', 'deployment.spec.template.spec', 'instance.status', 'pod.spec', 'policy.spec']) {
    assert.doesNotMatch(await s.k(`explain ${field}`), /<no description>/, field);
  }
  assert.equal((await s.k('explain deployment.spec.autoscaling')).split('Copies by what is asked').length, 2, 'said once');
  const text = await s.k('explain deployment.spec.template.spec.resources');
  assert.match(text, /cpu\s+<string>\n\s+CPU cores/);
  assert.match(await s.k('explain pods.status.containerStatuses.state.terminated'), /exitCode\s+<integer>/);
  assert.match(await s.k('explain site.spec.class'), /ENUM:\s+onprem\s+edge\s+private/);
  assert.match(await s.k('explain deploy.metadata.labels'), /FIELD: labels/);
  assert.match(await s.k('explain deploy.spec.template'), /-required-/);
  await s.kFails('explain site.spec.colour', /does not exist/);
});

it("an administrator's bearer token lets in, another one does not", async () => {
  const dir = await fleet.dir('atoll-token');
  const file = path.join(dir, 'tokens');
  await writeFile(file, '# operators\n\nfirst-token-of-the-test\nsecond-token-of-the-test\r\n', { mode: 0o600 });
  const t = await fleet.server({ args: ['--admin-token-file', file] });
  const ca = path.join(dir, 'ca.crt');
  const config = await readFile(t.kubeconfig, 'utf8');
  await writeFile(ca, Buffer.from(/certificate-authority-data: (\S+)/.exec(config)[1], 'base64'));
  const as = (token, args) => run(KUBECTL, ['--kubeconfig=/dev/null', `--server=${t.url}`, `--certificate-authority=${ca}`, `--token=${token}`, ...args]);
  for (const token of ['first-token-of-the-test', 'second-token-of-the-test']) {
    const who = await as(token, ['auth', 'whoami']);
    assert.match(who.out, /system:masters/, who.err);
    assert.equal((await as(token, ['get', 'namespaces'])).code, 0);
  }
  for (const token of ['first-token-of-the-tesT', '# operators', 'first-token-of-the-test2']) {
    assert.notEqual((await as(token, ['get', 'namespaces'])).code, 0, token);
  }
  await writeFile(file, 'first-token-of-the-test\nshort\n');
  const refused = await run(ATOLL, ['server', '--state', path.join(dir, 'other'), '--listen', '127.0.0.1:0', '--admin-token-file', file]);
  assert.equal(refused.code, 2);
  assert.match(refused.err, /tokens: line 2: /);
});

it('auth can-i and whoami', async () => {
  assert.equal(await s.k('auth can-i create deployments'), 'yes\n');
  assert.equal(await s.k('auth can-i delete sites'), 'yes\n');
  assert.match(await s.k('auth can-i --list'), /\*/);
  assert.match(await s.k('auth whoami'), /Username\s+admin/);
  assert.match(await s.k('auth whoami'), /system:masters/);
});

it('strangers are turned away', async () => {
  const kubeconfig = JSON.parse(await s.k('config view --raw -o json'));
  const ca = await fleet.file('ca.pem', Buffer.from(kubeconfig.clusters[0].cluster['certificate-authority-data'], 'base64').toString());
  const stranger = (args) => run(KUBECTL, [`--server=${s.url}`, `--certificate-authority=${ca}`, '--kubeconfig=/dev/null', ...args.split(' ')], { input: '\n\n', env: { HOME: s.home, KUBECONFIG: '/dev/null' } });
  assert.match((await stranger('get sites --token=forged')).err, /You must be logged in|Unauthorized/);
  const plain = await stranger('get --raw /apis/atoll.dev/v1/sites --token=x');
  assert.notEqual(plain.code, 0);
});

it('bad manifests are refused with the field that is wrong, and change nothing', async () => {
  const ns = await namespace();
  const refused = async (object, pattern, ...more) => s.kFails(['apply', '-n', ns, '-f', '-', ...more], pattern, { input: yaml(object) });
  await refused({ ...deployment('x'), extra: 1 }, /strict decoding error: unknown field "extra"/);
  await refused(deployment('x', { replica: 1 }), /unknown field "spec\.replica"/);
  await refused(deployment('x', { replicas: 'two' }), /spec\.replicas.*Invalid value/s);
  await refused(deployment('x', { template: { spec: { command: ['x'], resources: { cpu: '5x' } } } }), /spec\.template\.spec\.resources\.cpu: Invalid value: "5x": quantity/);
  await refused(deployment('x', { template: undefined }), /spec\.template: Required value/);
  await refused(site('x', { class: 'moon' }), /spec\.class: Unsupported value: "moon": supported values: "onprem", "edge"/);
  await refused(deployment('X'), /metadata\.name/);
  await refused(configMap('x', {}, { labels: { a: 'b c' } }), /metadata\.labels/);
  const both = await refused(site('x', { class: 'moon', carbonIntensity: -1 }), /is invalid:/);
  assert.match(both, /\* spec\.class: Unsupported value/);
  assert.match(both, /\* spec\.carbonIntensity: Invalid value: -1/);
  const warned = await s.kubectl(['apply', '-n', ns, '-f', '-', '--validate=warn'], { input: yaml(deployment('warned', { replica: 1 })) });
  assert.equal(warned.code, 0, warned.err);
  assert.match(warned.err, /Warning: unknown field "spec\.replica"/);
  assert.equal((await s.get(`deploy warned -n ${ns}`)).spec.replica, undefined);
  assert.equal((await s.kubectl(`get deploy x -n ${ns}`)).code, 1);
});

it('of two documents the good one is applied and said, the bad one is refused and said', async () => {
  const ns = await namespace();
  const r = await s.kubectl(['apply', '-n', ns, '-f', '-'], { input: yaml([configMap('good'), deployment('bad', { replicas: -1 })]) });
  assert.equal(r.code, 1);
  assert.equal(r.out, 'configmap/good created\n');
  assert.match(r.err, /The Deployment "bad" is invalid: spec\.replicas: Invalid value: -1/);
  await s.kFails(`get deploy bad -n ${ns}`, /NotFound/);
});

it('apply --server-side is answered clearly', async () => {
  const ns = await namespace();
  const r = await s.kubectl(['apply', '--server-side', '-n', ns, '-f', '-'], { input: yaml(configMap('ssa', { a: '1' })) });
  if (r.code === 0) {
    assert.equal((await s.get(`cm ssa -n ${ns}`)).data.a, '1');
  } else {
    assert.match(r.err, /apply-patch|server-side|media type/i);
  }
});
