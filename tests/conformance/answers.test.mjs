// What a Kubernetes API server answers to requests that are a little off, checked beside kube-apiserver 1.20: code, reason and
// field, not the words.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { deployment, Fleet } from '../e2e/lib/atoll.mjs';
import { call, credentials } from '../e2e/lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;
let admin;

const MAPS = '/api/v1/namespaces/default/configmaps';
const DEPLOYMENTS = '/apis/atoll.dev/v1/namespaces/default/deployments';
const SECRETS = '/api/v1/namespaces/default/secrets';
const EVENTS = '/api/v1/namespaces/default/events';
const LEASES = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
const ACCESS = '/apis/authorization.k8s.io/v1';
const map = (name, metadata = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ...metadata }, data: { a: 'b' } });
const secret = (name, type, data = {}) => ({ apiVersion: 'v1', kind: 'Secret', metadata: { name }, type, data });
const event = (name, involvedObject, more = {}) => ({ apiVersion: 'v1', kind: 'Event', metadata: { name }, involvedObject, reason: 'R', message: 'm', type: 'Normal', ...more });
const lease = (name) => ({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec: { holderIdentity: 'a' } });
const MERGE = { 'Content-Type': 'application/merge-patch+json' };
const APPLY = { 'Content-Type': 'application/apply-patch+yaml' };

before(async () => {
  s = await fleet.server();
  admin = await credentials(s.kubeconfig);
  for (const [path, object] of [[MAPS, map('there')], [LEASES, lease('there')], [SECRETS, secret('plain', 'Opaque')], [DEPLOYMENTS, deployment('there', { replicas: 0 })]]) {
    assert.equal((await call(admin, 'POST', path, object)).status, 201);
  }
});

// [method, path, body, headers, code, reason, field of the only or first cause]
const CASES = [
  ['POST', MAPS, map('there'), {}, 409, 'AlreadyExists'],
  ['POST', MAPS, { ...map('x'), kind: 'Secret' }, {}, 400, 'BadRequest'],
  ['POST', MAPS, '', {}, 400, 'BadRequest'],
  ['POST', MAPS, '{x', {}, 400, 'BadRequest'],
  ['POST', MAPS, '[]', {}, 400, 'BadRequest'],
  ['POST', MAPS, '<x/>', { 'Content-Type': 'text/xml' }, 415, 'UnsupportedMediaType'],
  ['POST', MAPS, map('X_Y'), {}, 422, 'Invalid', 'metadata.name'],
  ['POST', MAPS, map('x', { namespace: 'other' }), {}, 400, 'BadRequest'],
  ['POST', `${MAPS}?dryRun=yes`, map('x'), {}, 422, 'Invalid', 'dryRun'],
  ['POST', `${MAPS}?fieldValidation=Maybe`, map('x'), {}, 422, 'Invalid', 'fieldValidation'],
  ['POST', '/api/v1/configmaps', map('x'), {}, 405, 'MethodNotAllowed'],
  ['POST', `${MAPS}/there`, map('there'), {}, 405, 'MethodNotAllowed'],
  ['OPTIONS', `${MAPS}/there`, undefined, {}, 405, 'MethodNotAllowed'],
  ['GET', `${MAPS}/there`, undefined, { Accept: 'text/html' }, 406, 'NotAcceptable'],
  ['GET', MAPS, undefined, { Accept: 'application/vnd.kubernetes.protobuf' }, 406, 'NotAcceptable'],
  ['GET', `${MAPS}?watch=1`, undefined, { Accept: 'application/vnd.kubernetes.protobuf;stream=watch' }, 406, 'NotAcceptable'],
  ['GET', `${MAPS}?resourceVersionMatch=Exact`, undefined, {}, 422, 'Invalid', 'resourceVersionMatch'],
  ['GET', `${MAPS}?resourceVersionMatch=Near&resourceVersion=1`, undefined, {}, 422, 'Invalid', 'resourceVersionMatch'],
  ['GET', `${MAPS}?resourceVersionMatch=Exact&resourceVersion=0`, undefined, {}, 422, 'Invalid', 'resourceVersionMatch'],
  ['GET', `${MAPS}?watch=1&resourceVersionMatch=NotOlderThan`, undefined, {}, 422, 'Invalid', 'resourceVersionMatch'],
  ['GET', `${MAPS}?watch=1&sendInitialEvents=true`, undefined, {}, 422, 'Invalid', 'resourceVersionMatch'],
  ['GET', `${MAPS}?resourceVersion=99999999`, undefined, {}, 504, 'Timeout'],
  ['GET', `${MAPS}/there?resourceVersion=99999999`, undefined, {}, 504, 'Timeout'],
  ['PUT', `${MAPS}/there`, map('other'), {}, 400, 'BadRequest'],
  ['PUT', `${MAPS}/there`, map('there', { resourceVersion: '1' }), {}, 409, 'Conflict'],
  ['PUT', `${MAPS}/there`, map('there', { uid: '0-0' }), {}, 409, 'Conflict'],
  ['PUT', `${LEASES}/there`, lease('there'), {}, 422, 'Invalid', 'metadata.resourceVersion'],
  ['PUT', `${DEPLOYMENTS}/there/scale`, { apiVersion: 'autoscaling/v1', kind: 'Scale', metadata: { name: 'other' }, spec: { replicas: 1 } }, {}, 400, 'BadRequest'],
  ['PUT', `${DEPLOYMENTS}/there/scale`, map('there'), {}, 400, 'BadRequest'],
  ['PATCH', `${DEPLOYMENTS}/there/scale`, { spec: { replicas: 'x' } }, MERGE, 422, 'Invalid', 'spec.replicas'],
  ['PATCH', `${MAPS}/there`, '{}', { 'Content-Type': 'application/json' }, 415, 'UnsupportedMediaType'],
  ['PATCH', `${MAPS}/there?force=true`, '{}', MERGE, 422, 'Invalid', 'force'],
  ['PATCH', `${MAPS}/there`, map('there'), APPLY, 422, 'Invalid', 'fieldManager'],
  ['PATCH', `${MAPS}/there?fieldManager=m`, { data: { a: 'c' } }, APPLY, 400, 'BadRequest'],
  ['DELETE', `${MAPS}/there`, { propagationPolicy: 'Sideways' }, {}, 422, 'Invalid', 'propagationPolicy'],
  ['DELETE', `${MAPS}/there`, { propagationPolicy: 'Foreground', orphanDependents: true }, {}, 422, 'Invalid', 'propagationPolicy'],
  ['DELETE', `${MAPS}/there`, { preconditions: { uid: 'other' } }, {}, 409, 'Conflict'],
  ['DELETE', '/api/v1/namespaces', undefined, {}, 405, 'MethodNotAllowed'],
  ['POST', SECRETS, secret('x', 'kubernetes.io/tls'), {}, 422, 'Invalid', 'data[tls.crt]'],
  ['POST', SECRETS, secret('x', 'kubernetes.io/dockerconfigjson'), {}, 422, 'Invalid', 'data[.dockerconfigjson]'],
  ['POST', SECRETS, secret('x', 'kubernetes.io/basic-auth'), {}, 422, 'Invalid', 'data[username]'],
  ['POST', SECRETS, secret('x', 'kubernetes.io/service-account-token'), {}, 422, 'Invalid', 'metadata.annotations[kubernetes.io/service-account.name]'],
  ['PATCH', `${SECRETS}/plain`, { type: 'other' }, MERGE, 422, 'Invalid', 'type'],
  ['POST', EVENTS, event('x', { kind: 'Site', name: 's', namespace: 'other' }), {}, 422, 'Invalid', 'involvedObject.namespace'],
  ['POST', `${ACCESS}/selfsubjectaccessreviews`, { spec: {} }, {}, 422, 'Invalid', 'spec.resourceAttributes'],
  ['POST', `${ACCESS}/selfsubjectaccessreviews`, { spec: { resourceAttributes: { verb: 'get' }, nonResourceAttributes: { verb: 'get' } } }, {}, 422, 'Invalid', 'spec.nonResourceAttributes'],
  ['POST', `${ACCESS}/subjectaccessreviews`, { spec: { resourceAttributes: { verb: 'get' } } }, {}, 422, 'Invalid', 'spec.user'],
  ['POST', '/apis/authentication.k8s.io/v1/tokenreviews', { spec: {} }, {}, 400, 'BadRequest'],
  ['GET', '/api/v2', undefined, {}, 404, 'NotFound'],
  ['GET', `${MAPS}/there/status`, undefined, {}, 404, 'NotFound'],
];

it('requests that are a little off are refused as Kubernetes refuses them', async () => {
  for (const [method, path, body, headers, code, reason, field] of CASES) {
    const what = `${method} ${path} ${JSON.stringify(body)}`;
    const r = await call(admin, method, path, body, headers);
    assert.equal(r.status, code, `${what}: ${JSON.stringify(r.body)}`);
    assert.equal(r.body.kind, 'Status', what);
    assert.equal(r.body.reason, reason, what);
    if (field) assert.equal(r.body.details.causes[0].field, field, what);
    if (code === 504) assert.equal(r.headers['retry-after'], '1', what); // client-go tries again
  }
  assert.equal((await call(admin, 'GET', `${MAPS}/there`)).body.data.a, 'b'); // and changed nothing
});

it('old kinds are replaced without a version, as clients of Kubernetes do', async () => {
  const r = await call(admin, 'PUT', `${MAPS}/there`, { ...map('there'), data: { a: 'c' } });
  assert.equal(r.status, 200, JSON.stringify(r.body));
  assert.deepEqual(r.body.data, { a: 'c' });
});

it('null in metadata is as if it were not there', async () => {
  const r = await call(admin, 'POST', MAPS, map('nulls', { labels: null, annotations: null, finalizers: null, ownerReferences: null, creationTimestamp: null }));
  assert.equal(r.status, 201, JSON.stringify(r.body));
  for (const key of ['labels', 'annotations', 'finalizers', 'ownerReferences']) assert.ok(!(key in r.body.metadata), key);
});

it('what is asked for as protobuf or JSON comes as JSON', async () => {
  for (const accept of ['application/vnd.kubernetes.protobuf,application/json', 'application/vnd.kubernetes.protobuf, */*', 'application/cbor,application/json;q=0.9']) {
    const r = await call(admin, 'GET', MAPS, undefined, { Accept: accept });
    assert.equal(r.status, 200, accept);
    assert.equal(r.headers['content-type'], 'application/json');
    assert.equal(r.body.kind, 'ConfigMapList');
  }
});

it('limited lists say how many objects follow', async () => {
  const at = '/api/v1/namespaces/counted/configmaps';
  await call(admin, 'POST', '/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'counted' } });
  for (let i = 0; i < 7; i++) await call(admin, 'POST', at, map(`m${i}`, { labels: { odd: String(i % 2) } }));
  const left = [];
  let token = '';
  do {
    const { metadata, items } = (await call(admin, 'GET', `${at}?limit=3${token}`)).body;
    left.push([items.length, metadata.remainingItemCount]);
    token = metadata.continue ? `&continue=${encodeURIComponent(metadata.continue)}` : '';
    await call(admin, 'POST', at, map(`later${left.length}`)); // not in the snapshot
  } while (token);
  assert.deepEqual(left, [[3, 4], [3, 1], [1, undefined]]);
  const table = (await call(admin, 'GET', `${at}?limit=4`, undefined, { Accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' })).body;
  assert.equal(table.metadata.remainingItemCount, 6);
  const selected = (await call(admin, 'GET', `${at}?limit=2&labelSelector=odd%3D0`)).body;
  assert.ok(selected.metadata.continue);
  assert.equal(selected.metadata.remainingItemCount, undefined); // not known with a selector
  assert.equal((await call(admin, 'GET', at)).body.metadata.remainingItemCount, undefined);
});

it('events read as in Kubernetes', async () => {
  const when = new Date(Date.now() - 90_000).toISOString();
  const seen = event('e', { kind: 'ConfigMap', name: 'there', namespace: 'default' }, { count: 3, firstTimestamp: when, lastTimestamp: when, source: { component: 'c', host: 'h' } });
  assert.equal((await call(admin, 'POST', EVENTS, seen)).status, 201);
  const newer = { ...event('n', { kind: 'ConfigMap', name: 'there', namespace: 'default' }), eventTime: new Date().toISOString(), action: 'A', reportingComponent: 'r', reportingInstance: 'i', series: { count: 2, lastObservedTime: new Date().toISOString() }, related: { kind: 'Site', name: 'x' } };
  const made = await call(admin, 'POST', `${EVENTS}?fieldValidation=Strict`, newer);
  assert.equal(made.status, 201, JSON.stringify(made.body));
  assert.match(await s.k('get events'), /^LAST SEEN +TYPE +REASON +OBJECT +MESSAGE\n90s +Normal +R +configmap\/there +m$/m);
  assert.match(await s.k('get events -o wide'), /SUBOBJECT +SOURCE +MESSAGE +FIRST SEEN +COUNT +NAME\n/);
  assert.match(await s.k('get events -o wide'), /c, h +m +9\ds +3 +e$/m);
});

it('GET / says where there is something to ask for', async () => {
  const { paths } = (await call(admin, 'GET', '/')).body;
  for (const path of ['/api/v1', '/apis/atoll.dev/v1', '/openapi/v2', '/readyz']) assert.ok(paths.includes(path), path);
});
