// Server-side apply as GitOps tools and kubectl use it: who owns which field, and what happens when two want it.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { CustomObjectsApi, KubeConfig, setHeaderOptions } from '@kubernetes/client-node';
import { configMap, deployment, Fleet, KUBECTLS, site, yaml } from '../e2e/lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;

before(async () => {
  s = await fleet.server();
});

let n = 0;
async function namespace() {
  const ns = `apply-${++n}`;
  await s.k(`create namespace ${ns}`);
  return ns;
}

const app = (spec = {}, labels = { tier: 'web' }) =>
  deployment('app', { replicas: 2, template: { spec: { command: ['sleep', '1'], env: [{ name: 'A', value: '1' }], port: -1 } }, ...spec }, { labels });
const owners = async (ns, what = 'deploy app') =>
  Object.fromEntries((JSON.parse(await s.k(`get ${what} -n ${ns} -o json --show-managed-fields`)).metadata.managedFields ?? []).map((e) => [`${e.manager}/${e.operation}${e.subresource ? `/${e.subresource}` : ''}`, e]));
const ssa = (ns, object, ...more) => s.k(['apply', '--server-side', '-n', ns, '-f', '-', ...more], { input: yaml(object) });
const conflicts = (ns, object, pattern, ...more) => s.kFails(['apply', '--server-side', '-n', ns, '-f', '-', ...more], pattern, { input: yaml(object) });

it('every way of writing owns what it wrote', async () => {
  const ns = await namespace();
  await s.k(['create', '-n', ns, '-f', '-'], { input: yaml(app()) });
  const made = (await owners(ns))['kubectl-create/Update'];
  assert.deepEqual(made.fieldsV1['f:spec']['f:replicas'], {});
  assert.equal(made.apiVersion, 'atoll.dev/v1');
  assert.ok(Math.abs(Date.parse(made.time) - Date.now()) < 60_000);
  await s.k(`label deploy app tier=db --overwrite -n ${ns}`);
  await s.k(`annotate deploy app note=x -n ${ns}`);
  await s.k(`scale deploy.atoll.dev/app --replicas=3 -n ${ns}`);
  await s.k(['edit', 'deploy.atoll.dev', 'app', '-n', ns], { env: { KUBE_EDITOR: 'sed -i s/port:\\ -1/port:\\ 8080/' } });
  await s.k(['patch', 'deploy', 'app', '-n', ns, '--type=json', '-p', '[{"op":"add","path":"/metadata/labels/p","value":"q"}]']);
  await s.k(['patch', 'deploy', 'app', '-n', ns, '--subresource=status', '--type=merge', '-p', '{"status":{"readyReplicas":0}}']);
  const all = await owners(ns);
  assert.deepEqual(all['kubectl-label/Update'].fieldsV1, { 'f:metadata': { 'f:labels': { 'f:tier': {} } } });
  assert.deepEqual(all['kubectl-annotate/Update'].fieldsV1, { 'f:metadata': { 'f:annotations': { 'f:note': {} } } });
  assert.deepEqual(all['kubectl/Update/scale'].fieldsV1, { 'f:spec': { 'f:replicas': {} } });
  assert.deepEqual(all['kubectl-edit/Update'].fieldsV1, { 'f:spec': { 'f:template': { 'f:spec': { 'f:port': {} } } } });
  assert.deepEqual(all['kubectl-patch/Update'].fieldsV1, { 'f:metadata': { 'f:labels': { 'f:p': {} } } });
  assert.equal(all['kubectl-create/Update'].fieldsV1['f:spec']['f:replicas'], undefined);
  // Each of them is a conflict for who applies another value, and no more than that.
  const err = await conflicts(ns, app({}, { tier: 'web' }), /Apply failed with 3 conflicts/);
  for (const who of ['"kubectl-label" using atoll.dev/v1', '"kubectl" with subresource "scale" using', '"kubectl-edit" using']) assert.ok(err.includes(who), err);
  await ssa(ns, app(), '--force-conflicts');
  assert.equal((await s.get(`deploy app -n ${ns}`)).spec.replicas, 2);
  const after = await owners(ns);
  assert.ok(!after['kubectl/Update/scale'] && !after['kubectl-label/Update'] && !after['kubectl-edit/Update']);
  assert.deepEqual(after['kubectl/Apply'].fieldsV1['f:spec']['f:template']['f:spec']['f:env'], { 'k:{"name":"A"}': { '.': {}, 'f:name': {}, 'f:value': {} } });
});

it('two appliers share a list by its keys, and take out their own items only', async () => {
  const ns = await namespace();
  await ssa(ns, app());
  const more = (env) => ({ apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name: 'app' }, spec: { template: { spec: { env } } } });
  await ssa(ns, more([{ name: 'B', value: '2' }]), '--field-manager=other');
  assert.deepEqual((await s.get(`deploy app -n ${ns}`)).spec.template.spec.env.map((e) => e.name), ['A', 'B']);
  await conflicts(ns, more([{ name: 'A', value: 'x' }]), /conflict with "kubectl": \.spec\.template\.spec\.env\[name="A"\]\.value/, '--field-manager=other');
  await ssa(ns, more([]), '--field-manager=other');
  assert.deepEqual((await s.get(`deploy app -n ${ns}`)).spec.template.spec.env, [{ name: 'A', value: '1' }]);
  await conflicts(ns, more([{ name: 'C' }, { name: 'C' }]), /env\[\d\]\.name: Duplicate value: "C"/, '--field-manager=other');
  await ssa(ns, site('set', { links: [{ site: 'a', latency: '1ms' }] }));
  await ssa(ns, { ...site('set'), spec: { links: [{ site: 'b', latency: '2ms' }] } }, '--field-manager=other');
  assert.deepEqual((await s.get('site set')).spec.links.map((l) => l.site), ['a', 'b']);
});

it('what is applied no more goes, what others own or nobody applied stays', async () => {
  const ns = await namespace();
  await ssa(ns, configMap('c', { a: '1', b: '2' }, { labels: { x: 'y' } }));
  await ssa(ns, configMap('c', { b: '2' }), '--field-manager=other');
  await s.k(['patch', 'cm', 'c', '-n', ns, '--type=merge', '-p', '{"data":{"z":"26"}}']);
  await ssa(ns, configMap('c', {}));
  const c = await s.get(`cm c -n ${ns}`);
  assert.deepEqual(c.data, { b: '2', z: '26' });
  assert.equal(c.metadata.labels, undefined);
  const before = c.metadata.resourceVersion;
  await ssa(ns, configMap('c', {}));
  assert.equal((await s.get(`cm c -n ${ns}`)).metadata.resourceVersion, before, 'an apply that changes nothing writes nothing');
});

for (const kubectl of KUBECTLS) {
  it(`objects of client-side apply go over to the server, and back: ${kubectl.version}`, async () => {
    const ns = await namespace();
    const run = (args, object) => s.k([...args, '-n', ns, '-f', '-'], { input: yaml(object), command: kubectl.path });
    await run(['apply'], app());
    assert.match(await run(['apply', '--server-side'], app({ replicas: 4 })), /serverside-applied/);
    const all = await owners(ns);
    assert.ok(all['kubectl/Apply'].fieldsV1['f:spec']['f:replicas']);
    assert.equal((await s.get(`deploy app -n ${ns}`)).spec.replicas, 4);
    assert.match(await s.k(`apply view-last-applied deploy.atoll.dev/app -n ${ns}`), /replicas: 4/);
    // A field that client-side apply had set goes when the server's apply leaves it out.
    await run(['apply', '--server-side'], deployment('app', { replicas: 4, template: { spec: { command: ['sleep', '1'] } } }));
    if (kubectl.minor >= 27) assert.equal((await s.get(`deploy app -n ${ns}`)).metadata.labels?.tier, undefined);
    assert.match(await run(['apply'], app({ replicas: 5 })), /configured/);
    assert.equal((await s.get(`deploy app -n ${ns}`)).spec.replicas, 5);
  });
}

it('diff --server-side and --dry-run=server change nothing, owners neither', async () => {
  const ns = await namespace();
  await ssa(ns, app());
  const { resourceVersion } = (await s.get(`deploy app -n ${ns}`)).metadata;
  const r = await s.kubectl(['diff', '--server-side', '-n', ns, '-f', '-'], { input: yaml(app({ replicas: 9 })) });
  assert.equal(r.code, 1, r.err);
  assert.match(r.out, /^\+\s+replicas: 9$/m);
  await ssa(ns, app({ replicas: 9 }), '--dry-run=server');
  const now = (await s.get(`deploy app -n ${ns}`)).metadata;
  assert.equal(now.resourceVersion, resourceVersion);
});

it('client-node applies objects, their status and their scale', async () => {
  const ns = await namespace();
  const config = new KubeConfig();
  config.loadFromFile(s.kubeconfig);
  const api = config.makeApiClient(CustomObjectsApi);
  const APPLY = setHeaderOptions('Content-Type', 'application/apply-patch+yaml');
  const at = { group: 'atoll.dev', version: 'v1', namespace: ns, plural: 'deployments', name: 'app', fieldManager: 'node' };
  const made = await api.patchNamespacedCustomObject({ ...at, body: app() }, APPLY);
  assert.equal(made.metadata.managedFields[0].manager, 'node');
  const scale = { apiVersion: 'autoscaling/v1', kind: 'Scale', metadata: { name: 'app' }, spec: { replicas: 7 } };
  await assert.rejects(api.patchNamespacedCustomObjectScale({ ...at, fieldManager: 'hpa', body: scale }, APPLY), (e) => e.code === 409);
  assert.equal((await api.patchNamespacedCustomObjectScale({ ...at, fieldManager: 'hpa', force: true, body: scale }, APPLY)).spec.replicas, 7);
  const status = { apiVersion: 'atoll.dev/v1', kind: 'Deployment', status: { replicas: 0, readyReplicas: 0, updatedReplicas: 0, conditions: [{ type: 'Mine', status: 'True' }] } };
  const applied = await api.patchNamespacedCustomObjectStatus({ ...at, fieldManager: 'st', force: true, body: status }, APPLY);
  assert.ok(applied.status.conditions.some((c) => c.type === 'Mine'));
  const all = await owners(ns);
  assert.ok(all['st/Apply/status'].fieldsV1['f:status']['f:conditions']['k:{"type":"Mine"}']);
  assert.ok(all['hpa/Apply/scale'].fieldsV1['f:spec']['f:replicas']);
  await assert.rejects(api.patchNamespacedCustomObject({ ...at, fieldManager: undefined, body: app() }, APPLY), (e) => e.code === 422);
});
