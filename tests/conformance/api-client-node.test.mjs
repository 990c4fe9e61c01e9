// The official JavaScript client against `atoll server`: typed, custom and generic objects, watches and informers.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import {
  AuthorizationV1Api,
  CoreV1Api,
  CustomObjectsApi,
  KubeConfig,
  KubernetesObjectApi,
  makeInformer,
  PatchStrategy,
  setHeaderOptions,
  Watch,
} from '@kubernetes/client-node';
import { Agent } from 'node:https';
import { configMap, deployment, eventually, Fleet, site } from '../e2e/lib/atoll.mjs';
import { call, credentials } from '../e2e/lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const group = 'atoll.dev';
const version = 'v1';
const MERGE = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);
let s;
let config;
let custom;
let core;

before(async () => {
  s = await fleet.server();
  config = new KubeConfig();
  config.loadFromFile(s.kubeconfig);
  custom = config.makeApiClient(CustomObjectsApi);
  core = config.makeApiClient(CoreV1Api);
  await core.createNamespace({ body: { metadata: { name: 'n' } } });
});

const bodyOf = (error) => (typeof error.body === 'string' ? JSON.parse(error.body) : error.body);

async function refused(promise, code, reason) {
  const error = await promise.then(
    () => assert.fail('should have been refused'),
    (e) => e,
  );
  assert.equal(error.code, code, String(error));
  const status = bodyOf(error);
  assert.equal(status.kind, 'Status');
  assert.equal(status.reason, reason);
  return status;
}

const policy = (name, dataClass) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Policy',
  metadata: { name },
  spec: { residency: [{ dataClass, jurisdictions: ['EU'] }] },
});

it('CustomObjectsApi: cluster-scoped objects, all verbs', async () => {
  const at = { group, version, plural: 'policies', name: 'a' };
  const made = await custom.createClusterCustomObject({ ...at, body: policy('a', 'x') });
  assert.ok(made.metadata.uid);
  await refused(custom.createClusterCustomObject({ ...at, body: policy('a', 'x') }), 409, 'AlreadyExists');
  const got = await custom.getClusterCustomObject(at);
  const put = await custom.replaceClusterCustomObject({ ...at, body: { ...got, spec: policy('a', 'y').spec } });
  assert.equal(put.metadata.generation, 2);
  await refused(custom.replaceClusterCustomObject({ ...at, body: { ...got, spec: policy('a', 'z').spec } }), 409, 'Conflict');
  const patch = [{ op: 'add', path: '/metadata/labels', value: { a: 'b' } }]; // the client's own default: a JSON patch
  assert.deepEqual((await custom.patchClusterCustomObject({ ...at, body: patch })).metadata.labels, { a: 'b' });
  await custom.patchClusterCustomObject({ ...at, body: { metadata: { annotations: { c: 'd' } } } }, MERGE);
  const list = await custom.listClusterCustomObject({ ...at, labelSelector: 'a=b' });
  assert.equal(list.kind, 'PolicyList');
  assert.deepEqual(list.items.map((o) => [o.metadata.name, o.metadata.annotations.c, o.spec.residency[0].dataClass]), [['a', 'd', 'y']]);
  assert.equal((await custom.deleteClusterCustomObject(at)).status, 'Success');
  await refused(custom.getClusterCustomObject(at), 404, 'NotFound');
});

it('CustomObjectsApi: namespaced objects, status and scale', async () => {
  const at = { group, version, namespace: 'n', plural: 'deployments', name: 'd' };
  await custom.createNamespacedCustomObject({ ...at, body: deployment('d') });
  assert.equal((await custom.getNamespacedCustomObjectScale(at)).spec.replicas, 2);
  await custom.patchNamespacedCustomObjectScale({ ...at, body: { spec: { replicas: 0 } } }, MERGE);
  assert.equal((await custom.getNamespacedCustomObject(at)).spec.replicas, 0);
  const status = await custom.getNamespacedCustomObjectStatus(at);
  assert.equal(status.kind, 'Deployment');
  const everywhere = await custom.listCustomObjectForAllNamespaces({ group, version, plural: 'deployments', resourcePlural: 'deployments' });
  assert.equal(everywhere.items[0].metadata.namespace, 'n');
  const invalid = await refused(custom.createNamespacedCustomObject({ ...at, body: deployment('e', { replicas: -1 }) }), 422, 'Invalid');
  assert.equal(invalid.details.causes[0].field, 'spec.replicas');
  assert.equal(invalid.details.causes[0].reason, 'FieldValueInvalid');
  await custom.deleteNamespacedCustomObject(at);
});

it('KubernetesObjectApi: any kind by its own type', async () => {
  const api = KubernetesObjectApi.makeApiClient(config);
  const made = await api.create(configMap('generic', { a: '1' }, { namespace: 'n' }));
  assert.equal(made.data.a, '1');
  const patched = await api.patch(configMap('generic', { b: '2' }, { namespace: 'n' }), undefined, undefined, undefined, undefined, PatchStrategy.MergePatch);
  assert.deepEqual(patched.data, { a: '1', b: '2' });
  assert.deepEqual((await api.read(configMap('generic', {}, { namespace: 'n' }))).data, { a: '1', b: '2' });
  assert.equal((await api.list('v1', 'ConfigMap', 'n')).items.length, 1);
  await api.create(site('generic'));
  assert.equal((await api.read(site('generic'))).spec.class, 'edge');
  await api.delete(site('generic'));
  await api.delete(configMap('generic', {}, { namespace: 'n' }));
});

it('CoreV1Api: namespaces, events, secrets and config maps', async () => {
  assert.ok((await core.listNamespace()).items.some((n) => n.metadata.name === 'default'));
  await core.createNamespacedSecret({ namespace: 'n', body: { metadata: { name: 's' }, stringData: { p: 'hello' } } });
  const secret = await core.readNamespacedSecret({ namespace: 'n', name: 's' });
  assert.deepEqual(secret.data, { p: Buffer.from('hello').toString('base64') });
  assert.equal(secret.type, 'Opaque');
  await core.createNamespacedEvent({
    namespace: 'n',
    body: { metadata: { name: 'e.1' }, involvedObject: { kind: 'Site', name: 'x' }, reason: 'R', message: 'm', type: 'Warning' },
  });
  const events = await core.listNamespacedEvent({ namespace: 'n', fieldSelector: 'reason=R,involvedObject.name=x' });
  assert.deepEqual(events.items.map((e) => e.message), ['m']);
  await refused(core.listNamespacedEvent({ namespace: 'n', fieldSelector: 'colour=red' }), 400, 'BadRequest');
});

it('AuthorizationV1Api: may I', async () => {
  const api = config.makeApiClient(AuthorizationV1Api);
  const review = await api.createSelfSubjectAccessReview({
    body: { spec: { resourceAttributes: { group, resource: 'deployments', verb: 'create', namespace: 'n' } } },
  });
  assert.equal(review.status.allowed, true);
});

// Collects a watch's events until the test aborts it.
async function watchOn(path, query) {
  const events = [];
  let failed;
  const controller = await new Watch(config).watch(
    path,
    query,
    (type, object) => events.push([type, object]),
    (error) => {
      failed = error;
    },
  );
  return {
    events,
    seen: (type, name) =>
      eventually(`${type} ${name}`, () => {
        if (failed && failed.name !== 'AbortError') throw failed;
        return events.find(([t, o]) => t === type && o.metadata.name === name);
      }),
    stop: () => controller.abort(),
  };
}

it('Watch: from now, from a version, with bookmarks', async () => {
  const path = '/api/v1/namespaces/n/configmaps';
  await core.createNamespacedConfigMap({ namespace: 'n', body: { metadata: { name: 'w0' } } });
  const all = await watchOn(path, {});
  await all.seen('ADDED', 'w0'); // no version: what is there comes first
  const { metadata } = await core.listNamespacedConfigMap({ namespace: 'n' });
  const late = await watchOn(path, { resourceVersion: metadata.resourceVersion, allowWatchBookmarks: true });
  await core.createNamespacedConfigMap({ namespace: 'n', body: { metadata: { name: 'w1' } } });
  await all.seen('ADDED', 'w1');
  await late.seen('ADDED', 'w1');
  await core.patchNamespacedConfigMap({ namespace: 'n', name: 'w1', body: { data: { a: 'b' } } }, MERGE);
  const [, changed] = await late.seen('MODIFIED', 'w1');
  assert.equal(changed.data.a, 'b');
  await core.deleteNamespacedConfigMap({ namespace: 'n', name: 'w1' });
  const [, deleted] = await late.seen('DELETED', 'w1');
  assert.ok(Number(deleted.metadata.resourceVersion) > Number(changed.metadata.resourceVersion));
  assert.ok(!late.events.some(([, o]) => o.metadata.name === 'w0'), 'nothing from before the version');
  all.stop();
  late.stop();
});

it('lists at versions that are not there', async () => {
  const at = (query) => core.listNamespacedConfigMap({ namespace: 'n', ...query });
  const { metadata } = await at({});
  assert.ok((await at({ resourceVersion: '0' })).metadata.resourceVersion);
  assert.equal((await at({ resourceVersion: metadata.resourceVersion, resourceVersionMatch: 'Exact' })).metadata.resourceVersion, metadata.resourceVersion);
  await refused(at({ resourceVersion: '999999999' }), 504, 'Timeout');
  await refused(at({ resourceVersion: 'x' }), 400, 'BadRequest');
  await refused(at({ limit: 1, _continue: 'forged' }), 400, 'BadRequest');
});

it('pages are of one snapshot', async () => {
  await core.createNamespace({ body: { metadata: { name: 'pages' } } });
  const at = { namespace: 'pages' };
  for (const name of ['a', 'b', 'c', 'd', 'e']) await core.createNamespacedConfigMap({ ...at, body: { metadata: { name }, data: { v: '1' } } });
  const first = await core.listNamespacedConfigMap({ ...at, limit: 2 });
  assert.deepEqual(first.items.map((o) => o.metadata.name), ['a', 'b']);
  await core.deleteNamespacedConfigMap({ ...at, name: 'c' });
  await core.createNamespacedConfigMap({ ...at, body: { metadata: { name: 'cc' } } });
  await core.patchNamespacedConfigMap({ ...at, name: 'd', body: { data: { v: '2' } } }, MERGE);
  const rest = await core.listNamespacedConfigMap({ ...at, limit: 2, _continue: first.metadata._continue });
  assert.deepEqual(rest.items.map((o) => [o.metadata.name, o.data.v]), [['c', '1'], ['d', '1']]);
  assert.equal(rest.metadata.resourceVersion, first.metadata.resourceVersion);
});

it('what is older than the history is gone, and an informer goes on', async (t) => {
  const own = await fleet.server({ args: ['--limit', 'history=100', '--limit', 'history-bytes=64Ki'] });
  const config = new KubeConfig();
  config.loadFromFile(own.kubeconfig);
  const core = config.makeApiClient(CoreV1Api);
  await core.createNamespace({ body: { metadata: { name: 'old' } } });
  const at = { namespace: 'old' };
  for (const name of ['a', 'e']) await core.createNamespacedConfigMap({ ...at, body: { metadata: { name }, data: { v: '1' } } });
  const list = () => core.listNamespacedConfigMap(at);
  const informer = makeInformer(config, '/api/v1/namespaces/old/configmaps', list);
  let going = true;
  informer.on('error', () => going && setTimeout(() => informer.start().catch(() => {}), 100));
  t.after(async () => {
    going = false;
    await informer.stop();
  });
  await informer.start();
  const first = await core.listNamespacedConfigMap({ ...at, limit: 1 });
  await core.deleteNamespacedConfigMap({ ...at, name: 'a' });
  // More changes than the server remembers: what is older than they are is gone.
  const admin = { ...(await credentials(own.kubeconfig)), agent: new Agent({ keepAlive: true, maxSockets: 16 }) };
  const path = '/api/v1/namespaces/old/configmaps/e';
  const write = async (i) => assert.equal((await call(admin, 'PATCH', path, { data: { v: String(i).padStart(4_000, '.') } }, { 'Content-Type': 'application/merge-patch+json' })).status, 200);
  for (let i = 0; i < 64; i += 16) await Promise.all(Array.from({ length: 16 }, (_, k) => write(i + k)));
  await write('last');
  admin.agent.destroy();
  await refused(core.listNamespacedConfigMap({ ...at, limit: 2, _continue: first.metadata._continue }), 410, 'Expired');
  await refused(core.listNamespacedConfigMap({ ...at, resourceVersion: first.metadata.resourceVersion, resourceVersionMatch: 'Exact' }), 410, 'Expired');
  const failed = await new Promise((resolve) => {
    new Watch(config).watch('/api/v1/namespaces/old/configmaps', { resourceVersion: first.metadata.resourceVersion }, () => {}, resolve);
  });
  assert.match(String(failed), /Gone|410|Expired/);
  await core.createNamespacedConfigMap({ ...at, body: { metadata: { name: 'late' } } });
  await eventually('the informer has it', () => informer.get('late', 'old') && !informer.get('a', 'old') && informer.get('e', 'old').data.v.endsWith('last'));
});

it('a WatchList is what there is, a mark, and what changes', async () => {
  const seen = await watchOn('/api/v1/namespaces/pages/configmaps', { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan', allowWatchBookmarks: true });
  const end = await eventually('the mark', () => seen.events.findIndex(([type, o]) => type === 'BOOKMARK' && o.metadata.annotations?.['k8s.io/initial-events-end'] === 'true') + 1);
  assert.deepEqual(seen.events.slice(0, end - 1).map(([type, o]) => `${type} ${o.metadata.name}`), ['ADDED a', 'ADDED b', 'ADDED cc', 'ADDED d', 'ADDED e']);
  await core.createNamespacedConfigMap({ namespace: 'pages', body: { metadata: { name: 'after' } } });
  await seen.seen('ADDED', 'after');
  seen.stop();
});

it('an informer stays right over a restart of the server', async () => {
  const list = () => core.listNamespacedConfigMap({ namespace: 'n' });
  const informer = makeInformer(config, '/api/v1/namespaces/n/configmaps', list);
  const has = (name) => eventually(`informer has ${name}`, () => informer.get(name, 'n'));
  let restarting = true;
  informer.on('error', () => {
    // The connection breaks with the server; the client asks its user to start the informer again.
    if (restarting) setTimeout(() => informer.start().catch(() => {}), 100);
  });
  await informer.start();
  await core.createNamespacedConfigMap({ namespace: 'n', body: { metadata: { name: 'before' } } });
  await has('before');
  await s.restart();
  config.loadFromFile(s.kubeconfig);
  await eventually('the server answers again', async () => (await list()).items.length);
  await core.createNamespacedConfigMap({ namespace: 'n', body: { metadata: { name: 'after' } } });
  await has('after');
  assert.ok(informer.get('before', 'n'), 'what was there is still there');
  await core.deleteNamespacedConfigMap({ namespace: 'n', name: 'before' });
  await eventually('the deletion is seen', () => !informer.get('before', 'n'));
  restarting = false;
  await informer.stop();
});
