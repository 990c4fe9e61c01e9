// What client libraries and controllers use beyond kubectl's everyday commands.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { AuthenticationV1Api, AuthorizationV1Api, CoordinationV1Api, KubeConfig, V1MicroTime } from '@kubernetes/client-node';
import { configMap, Fleet } from '../e2e/lib/atoll.mjs';
import { call, credentials } from '../e2e/lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;
let admin;
let config;

before(async () => {
  s = await fleet.server();
  admin = await credentials(s.kubeconfig);
  config = new KubeConfig();
  config.loadFromFile(s.kubeconfig);
});

const get = async (path, headers) => (await call(admin, 'GET', path, undefined, headers)).body;

// client-go's leaderelection, as far as one lease goes: take it when it is free or has run out, renew it with the version read.
class Candidate {
  constructor(name, duration) {
    Object.assign(this, { name, duration, api: config.makeApiClient(CoordinationV1Api) });
  }

  async tick(lease = 'leader') {
    const now = new V1MicroTime(Date.now());
    const mine = { holderIdentity: this.name, leaseDurationSeconds: this.duration, acquireTime: now, renewTime: now, leaseTransitions: 0 };
    const at = { namespace: 'default', name: lease };
    let old;
    try {
      old = await this.api.readNamespacedLease(at);
    } catch (error) {
      assert.equal(error.code, 404);
    }
    try {
      if (!old) {
        await this.api.createNamespacedLease({ namespace: 'default', body: { metadata: { name: lease }, spec: mine } });
        return true;
      }
      const until = Date.parse(old.spec.renewTime) + old.spec.leaseDurationSeconds * 1000;
      if (old.spec.holderIdentity !== this.name && until > Date.now()) return false;
      if (old.spec.holderIdentity === this.name) mine.acquireTime = old.spec.acquireTime;
      else mine.leaseTransitions = old.spec.leaseTransitions + 1;
      await this.api.replaceNamespacedLease({ ...at, body: { ...old, spec: mine } });
      return true;
    } catch (error) {
      assert.equal(error.code, 409, String(error));
      return false; // another was faster
    }
  }
}

it('leases elect one leader at a time', async () => {
  const candidates = ['a', 'b', 'c', 'd'].map((name) => new Candidate(name, 60));
  for (let round = 0; round < 5; round++) {
    const won = await Promise.all(candidates.map((x) => x.tick()));
    assert.equal(won.filter(Boolean).length, 1, `round ${round}: ${won}`);
  }
  const holder = (await s.get('lease leader')).spec.holderIdentity;
  const others = candidates.filter((x) => x.name !== holder);
  assert.ok(!(await Promise.all(others.map((x) => x.tick()))).some(Boolean), 'a lease that runs is nobody else\'s');
  // The holder is gone: its last sign of life becomes an old one.
  await s.k(['patch', 'lease', 'leader', '--type=merge', '-p', '{"spec":{"renewTime":"2020-01-01T00:00:00.000000Z"}}']);
  assert.equal((await Promise.all(others.map((x) => x.tick()))).filter(Boolean).length, 1);
  const lease = await s.get('lease leader');
  assert.notEqual(lease.spec.holderIdentity, holder);
  assert.equal(lease.spec.leaseTransitions, 1);
  assert.match(await s.k('get leases'), /^NAME\s+HOLDER\s+AGE\nleader\s+[a-d]\s/);
  assert.match(await s.k('explain lease.spec'), /holderIdentity/);
  assert.match(await s.k('api-resources --api-group=coordination.k8s.io'), /leases\s+coordination\.k8s\.io\/v1\s+true\s+Lease/);
});

it('a lease is checked like every object', async () => {
  const bad = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'bad' }, spec: { leaseDurationSeconds: 0 } };
  await s.kFails('apply -f -', /spec\.leaseDurationSeconds/, { input: JSON.stringify(bad) });
  bad.spec = { renewTime: 'yesterday' };
  await s.kFails('apply -f -', /spec\.renewTime/, { input: JSON.stringify(bad) });
});

it('the server says what others may', async () => {
  const api = config.makeApiClient(AuthorizationV1Api);
  const ask = async (user, groups, resourceAttributes) => (await api.createSubjectAccessReview({ body: { spec: { user, groups, resourceAttributes } } })).status.allowed;
  const sites = { group: 'atoll.dev', resource: 'sites' };
  assert.equal(await ask('eve', ['atoll:viewers'], { ...sites, verb: 'list' }), true);
  assert.equal(await ask('eve', ['atoll:viewers'], { ...sites, verb: 'delete', name: 'x' }), false);
  assert.equal(await ask('eve', ['atoll:viewers'], { resource: 'secrets', verb: 'get', name: 'x', namespace: 'default' }), false);
  assert.equal(await ask('eve', [], { ...sites, verb: 'list' }), false);
  assert.equal(await ask('root', ['system:masters'], { ...sites, verb: 'delete', name: 'x' }), true);
  assert.equal(await ask('eve', ['atoll:viewers'], { resource: 'pods', subresource: 'exec', verb: 'create', namespace: 'default', name: 'x' }), false);
  assert.equal(await ask('ed', ['atoll:editors'], { resource: 'pods', subresource: 'exec', verb: 'create', namespace: 'default', name: 'x' }), true);
  assert.equal(await ask('system:node:n1', ['system:nodes'], { group: 'atoll.dev', resource: 'nodes', verb: 'patch', name: 'n1' }), true);
  assert.equal(await ask('system:node:n1', ['system:nodes'], { group: 'atoll.dev', resource: 'nodes', verb: 'patch', name: 'n2' }), false);
});

it('paths that are no resources can be asked about', async () => {
  assert.equal(await s.k('auth can-i get /metrics'), 'yes\n');
  const ask = async (user, groups, nonResourceAttributes) => (await call(admin, 'POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', { spec: { user, groups, nonResourceAttributes } })).body.status.allowed;
  assert.equal(await ask('eve', [], { path: '/metrics', verb: 'get' }), false);
  assert.equal(await ask('eve', ['atoll:viewers'], { path: '/metrics', verb: 'get' }), true);
  assert.equal(await ask('eve', [], { path: '/version', verb: 'get' }), true);
  assert.equal(await ask('eve', [], {}), false);
});

it("a forged token is nobody's", async () => {
  const api = config.makeApiClient(AuthenticationV1Api);
  const forged = await api.createTokenReview({ body: { spec: { token: 'forged' } } });
  assert.equal(forged.status.authenticated, false);
});

it('pages with a selector, and metadata alone', async () => {
  for (let i = 0; i < 7; i++) await s.apply(configMap(`page-${i}`, { k: 'v' }, { labels: { odd: String(i % 2) } }));
  const names = [];
  let pages = 0;
  let token = '';
  do {
    const page = await get(`/api/v1/namespaces/default/configmaps?labelSelector=odd%3D0&limit=3&continue=${encodeURIComponent(token)}`);
    assert.ok(page.items.length <= 3);
    names.push(...page.items.map((x) => x.metadata.name));
    token = page.metadata.continue ?? '';
    pages += 1;
  } while (token);
  assert.deepEqual(names, ['page-0', 'page-2', 'page-4', 'page-6']);
  assert.equal(pages, 2);
  assert.equal((await s.k('get cm -l odd=0 --chunk-size=1 -o name')).trim().split('\n').length, 4);
  const accept = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1';
  const list = await get('/api/v1/namespaces/default/configmaps', { Accept: accept });
  assert.equal(list.kind, 'PartialObjectMetadataList');
  assert.ok(list.items.every((x) => x.kind === 'PartialObjectMetadata' && x.data === undefined && x.metadata.uid));
});

it('--as acts as another user, with that one\'s rights', async () => {
  assert.equal(await s.k('auth can-i list sites --as=eve --as-group=atoll:viewers'), 'yes\n');
  await s.kFails('get cm --as=eve', /User "eve" cannot list resource "configmaps"/);
  const who = await s.k('auth whoami --as=eve --as-group=a --as-group=b --as-uid=7');
  assert.match(who, /Username\s+eve/);
  assert.match(who, /UID\s+7/);
  assert.match(who, /Groups\s+\[a b system:authenticated\]/);
  const asEve = { 'Impersonate-User': 'eve' };
  assert.equal((await call(admin, 'GET', '/api/v1/namespaces', undefined, asEve)).status, 403);
});
