// Rights that are stored as Role, ClusterRole and bindings, with kubectl as their user: given, used, taken away; and the
// ways to get more than one has, all refused.
import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import { Fleet, deployment, eventually } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const RBAC = 'rbac.authorization.k8s.io';
const role = (name, rules, ns = 'default') => ({ apiVersion: `${RBAC}/v1`, kind: 'Role', metadata: { name, namespace: ns }, rules });
const clusterRole = (name, rules, more = {}) => ({ apiVersion: `${RBAC}/v1`, kind: 'ClusterRole', metadata: { name, ...more.metadata }, rules, ...(more.aggregationRule ? { aggregationRule: more.aggregationRule } : {}) });
const bind = (name, to, subjects, ns = 'default') => ({
  apiVersion: `${RBAC}/v1`,
  kind: ns ? 'RoleBinding' : 'ClusterRoleBinding',
  metadata: { name, ...(ns ? { namespace: ns } : {}) },
  roleRef: { apiGroup: RBAC, kind: to.kind, name: to.metadata?.name ?? to.name },
  subjects: subjects.map((s) => (typeof s === 'string' ? { kind: 'User', name: s, apiGroup: RBAC } : s)),
});
const rule = (verbs, group, resources, more = {}) => ({ verbs: verbs.split(' '), apiGroups: [group], resources: resources.split(' '), ...more });
const as = (user, ...groups) => ['--as', user, ...groups.flatMap((g) => ['--as-group', g])];
const NAMED = (name) => ({ kind: 'ClusterRole', name });

let server;
const can = async (user, words) => (await server.kubectl([...`auth can-i ${words}`.split(' '), ...as(user)])).out.trim() === 'yes';

fleet.it('kubectl create role and rolebinding give rights, resourceNames and subresources bound them, deleting takes them away', async () => {
  server = await fleet.server();
  await server.k('create namespace team');
  await server.k('create role reader --verb=get,list,watch --resource=configmaps -n team');
  await server.k('create rolebinding alice --role=reader --user=alice -n team');
  await server.k('create role one --verb=get --resource=secrets --resource-name=one -n team');
  await server.k('create rolebinding alice-one --role=one --user=alice -n team');
  await server.k('create secret generic one --from-literal=a=b -n team');
  await server.k('create secret generic two --from-literal=a=b -n team');
  await server.k(['get', 'configmaps', '-n', 'team', ...as('alice')]);
  await server.k(['get', 'secret', 'one', '-n', 'team', ...as('alice')]);
  await server.kFails(['get', 'secret', 'two', '-n', 'team', ...as('alice')], /User "alice" cannot get resource "secrets"/);
  await server.kFails(['get', 'secrets', '-n', 'team', ...as('alice')], /cannot list/);
  await server.kFails(['get', 'configmaps', ...as('alice')], /cannot list/);
  await server.kFails(['get', 'configmaps', '-A', ...as('alice')], /cannot list/);
  await server.kFails(['create', 'configmap', 'x', '-n', 'team', ...as('alice')], /cannot create/);
  const list = await server.k(['auth', 'can-i', '--list', '-n', 'team', ...as('alice')]);
  assert.match(list, /configmaps\s+\[\]\s+\[\]\s+\[get list watch\]/);
  assert.match(list, /secrets\s+\[\]\s+\[one\]\s+\[get\]/);
  await server.k('delete rolebinding alice -n team');
  await server.kFails(['get', 'configmaps', '-n', 'team', ...as('alice')], /cannot list/);
});

fleet.it('a right that is taken away ends the watches that stood on it', async () => {
  const admin = await credentials(server.kubeconfig);
  await server.apply(bind('watcher', NAMED('view'), ['wanda']));
  const began = Date.now();
  const watch = call(admin, 'GET', '/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=50', undefined, { 'Impersonate-User': 'wanda' });
  const other = call(admin, 'GET', '/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=3', undefined);
  await eventually('it watches', async () => /atoll_api_watches ([2-9]|\d\d)/.test((await call(admin, 'GET', '/metrics')).body));
  await server.k('delete rolebinding watcher');
  const ended = await watch;
  assert.ok(Date.now() - began < 40_000);
  assert.match(JSON.stringify(ended.body), /the right to watch this was taken away/);
  assert.doesNotMatch(JSON.stringify((await other).body), /taken away/);
});

fleet.it('a role or binding that gives more than its maker has is refused, whatever the way', async () => {
  await server.apply([
    clusterRole('rbac-maker', [rule('get list create update patch delete', RBAC, 'roles rolebindings clusterroles clusterrolebindings'), rule('get', '', 'configmaps')]),
    bind('mallory', NAMED('rbac-maker'), ['mallory'], null),
  ]);
  const try_ = (manifest, ...args) => server.kubectl(['create', '-f', '-', ...as('mallory'), ...args], { input: JSON.stringify(manifest) });
  const refused = async (manifest, why = /not currently held/) => {
    const r = await try_(manifest);
    assert.notEqual(r.code, 0, JSON.stringify(manifest));
    assert.match(r.err, why);
  };
  await refused(role('more', [rule('get', '', 'secrets')]));
  await refused(clusterRole('more', [rule('*', '*', '*')]));
  await refused(clusterRole('paths', [{ verbs: ['get'], nonResourceURLs: ['/metrics'] }]));
  await refused(bind('me', NAMED('cluster-admin'), ['mallory']));
  await refused(bind('me', NAMED('edit'), ['mallory'], null));
  await refused(bind('me', NAMED('made-later'), ['mallory']), /is not there/);
  await refused(clusterRole('sum', [], { aggregationRule: { clusterRoleSelectors: [{ matchLabels: { a: 'b' } }] } }), /aggregationRule/);
  await refused(clusterRole('into-view', [rule('get', '', 'secrets')], { metadata: { labels: { [`${RBAC}/aggregate-to-view`]: 'true' } } }));
  // What she has she may give, and then not widen: by update, patch or apply.
  assert.equal((await try_(role('same', [rule('get', '', 'configmaps')]))).code, 0);
  const wider = JSON.stringify([{ op: 'add', path: '/rules/0/resources/-', value: 'secrets' }]);
  await server.kFails(['patch', 'role', 'same', '--type=json', '-p', wider, ...as('mallory')], /not currently held/);
  await server.kFails(['apply', '--server-side', '--force-conflicts', '-f', '-', ...as('mallory')], /not currently held/, { input: JSON.stringify(role('same', [rule('*', '*', '*')])) });
  await server.kFails(['replace', '-f', '-', ...as('mallory')], /not currently held/, { input: JSON.stringify(role('same', [rule('get delete', '', 'configmaps')])) });
  await server.kFails(['create', 'token', 'default', ...as('mallory')], /cannot create resource "serviceaccounts\/token"/);
  // bind and escalate are rights of their own.
  await server.apply([clusterRole('binder', [rule('bind', RBAC, 'clusterroles', { resourceNames: ['view'] })]), bind('binder', NAMED('binder'), ['mallory'], null)]);
  assert.equal((await try_(bind('view-for-bob', NAMED('view'), ['bob']))).code, 0);
  await refused(bind('edit-for-bob', NAMED('edit'), ['bob']));
  await server.apply([clusterRole('escalator', [rule('escalate', RBAC, 'roles')]), bind('escalator', NAMED('escalator'), ['mallory'])]);
  assert.equal((await try_(role('much', [rule('*', '*', '*')]))).code, 0);
});

fleet.it('editors and viewers of the built-in groups reach no rights, no status, no tokens, and act as nobody', async () => {
  for (const group of ['atoll:editors', 'atoll:viewers']) {
    const who = as('eddy', group);
    await server.kFails(['create', '-f', '-', ...who], /cannot create resource "rolebindings"/, { input: JSON.stringify(bind('x', NAMED('cluster-admin'), ['eddy'])) });
    await server.kFails(['create', '-f', '-', ...who], /cannot create resource "roles"/, { input: JSON.stringify(role('x', [rule('*', '*', '*')])) });
    await server.kFails(['create', 'token', 'default', ...who], /cannot create/);
    await server.kFails(['delete', 'namespace', 'team', ...who], /cannot delete resource "namespaces"/);
  }
  await server.apply(deployment('d', { replicas: 0 }));
  await server.kFails(['patch', 'deployment.atoll.dev', 'd', '--subresource=status', '--type=merge', '-p', '{"status":{"replicas":9}}', ...as('eddy', 'atoll:editors')], /cannot patch resource "deployments\/status"/);
});

fleet.it('built-in roles work in a namespace, are aggregated into, and are put back at the start', async () => {
  await server.apply([
    bind('tenant-admin', NAMED('admin'), ['tina'], 'team'),
    clusterRole('more-view', [{ verbs: ['get'], nonResourceURLs: ['/metrics'] }], { metadata: { labels: { [`${RBAC}/aggregate-to-view`]: 'true' } } }),
    bind('vera', NAMED('view'), ['vera'], null),
  ]);
  await server.k(['get', '--raw', '/metrics', ...as('vera')]);
  await server.k(['create', 'configmap', 'c', '-n', 'team', ...as('tina')]);
  await server.k(['create', 'rolebinding', 'friend', '--clusterrole=edit', '--user=fred', '-n', 'team', ...as('tina')]);
  await server.k(['delete', 'configmap', 'c', '-n', 'team', ...as('fred')]);
  await server.kFails(['create', 'rolebinding', 'boss', '--clusterrole=cluster-admin', '--user=tina', '-n', 'team', ...as('tina')], /not currently held/);
  await server.kFails(['create', 'configmap', 'c', '-n', 'default', ...as('tina')], /cannot create/);
  await server.k(['patch', 'clusterrole', 'system:aggregate-to-view', '--type=json', '-p', JSON.stringify([{ op: 'replace', path: '/rules', value: [rule('*', '*', '*')] }])]);
  assert.equal(await can('vera', 'delete secrets'), true);
  await server.restart();
  await eventually('view is what it was', async () => !(await can('vera', 'delete secrets')));
  assert.equal(await can('vera', 'get deployments.atoll.dev'), true);
});

fleet.it('the rules of its parts are written into an aggregated role, as in Kubernetes, and go with them; nobody gets more by it', async () => {
  const rulesOf = async (name) => JSON.parse(await server.k(`get clusterrole ${name} -o json`)).rules;
  const shows = (name, resource) => async () => (await rulesOf(name)).some((r) => r.resources?.includes(resource));
  const sum = (name, labels) => clusterRole(name, [], { aggregationRule: { clusterRoleSelectors: [{ matchLabels: labels }] } });
  for (const name of ['view', 'edit', 'admin']) await eventually(`${name} shows what it gives`, shows(name, 'deployments'));
  assert.equal(await shows('view', 'secrets')(), false);
  await server.apply([
    sum('sum', { to: 'sum' }),
    sum('sum-of-sums', { to: 'sums' }),
    clusterRole('part-b', [rule('get', '', 'configmaps'), rule('list', '', 'events')], { metadata: { labels: { to: 'sum' } } }),
    clusterRole('part-a', [rule('get', '', 'configmaps')], { metadata: { labels: { to: 'sum' } } }),
    clusterRole('crontabs', [rule('get list', 'stable.example.com', 'crontabs')], { metadata: { labels: { [`${RBAC}/aggregate-to-view`]: 'true' } } }),
  ]);
  await eventually('each rule once, in order of the parts', async () => { const got = await rulesOf('sum'); return isDeepStrictEqual(got, [rule('get', '', 'configmaps'), rule('list', '', 'events')]); });
  for (const name of ['view', 'edit', 'admin']) await eventually(`${name} has it too`, shows(name, 'crontabs'));
  // What a sum picks may be a sum.
  await server.k('label clusterrole sum to=sums');
  await eventually('the sum of sums has them', shows('sum-of-sums', 'events'));
  // Written by hand, it gives nothing and does not stay; applied again, it comes back.
  await server.apply(bind('ann', NAMED('sum'), ['ann'], null));
  assert.deepEqual([await can('ann', 'get configmaps'), await can('ann', 'delete secrets')], [true, false]);
  await server.k(['patch', 'clusterrole', 'sum', '--type=json', '-p', JSON.stringify([{ op: 'replace', path: '/rules', value: [rule('*', '*', '*')] }])]);
  assert.equal(await can('ann', 'delete secrets'), false);
  await eventually('it is what its parts are', async () => (await rulesOf('sum')).length === 2);
  await server.apply(sum('sum', { to: 'sum' }));
  await eventually('it is again', async () => (await rulesOf('sum')).length === 2);
  await server.k('label clusterrole part-b to-');
  await eventually('a rule went with its part', async () => (await rulesOf('sum')).length === 1);
  await server.k('delete clusterrole part-a');
  assert.equal(await can('ann', 'get configmaps'), false);
  await eventually('nothing is left', async () => (await rulesOf('sum')).length === 0);
  // Who makes roles may not reach by a label what he may not give.
  await server.kFails(['label', 'clusterrole', 'crontabs', 'to=sum', ...as('mallory')], /not currently held/);
  await server.kFails(['create', '-f', '-', ...as('mallory')], /not currently held/, { input: JSON.stringify(clusterRole('into', [rule('*', '*', '*')], { metadata: { labels: { to: 'sum' } } })) });
  await server.kFails(['patch', 'clusterrole', 'sum', '--type=merge', '-p', JSON.stringify({ aggregationRule: { clusterRoleSelectors: [{ matchLabels: { 'kubernetes.io/bootstrapping': 'rbac-defaults' } }] } }), ...as('mallory')], /aggregationRule/);
});

fleet.it('an account acts with its own token and rights only, and to impersonate it needs its name', async () => {
  await server.k('create serviceaccount robot -n team');
  await server.k('create rolebinding robot --clusterrole=view --serviceaccount=team:robot -n team');
  const token = (await server.k('create token robot -n team')).trim();
  const admin = await credentials(server.kubeconfig);
  const bearer = { url: server.url, ca: admin.ca };
  const ask = (path) => call(bearer, 'GET', path, undefined, { Authorization: `Bearer ${token}` });
  assert.equal((await ask('/api/v1/namespaces/team/configmaps')).status, 200);
  assert.equal((await ask('/api/v1/namespaces/team/secrets')).status, 403);
  assert.equal((await ask('/api/v1/namespaces/default/configmaps')).status, 403);
  await server.apply([clusterRole('as-robot', [rule('impersonate', '', 'serviceaccounts', { resourceNames: ['robot'] })]), bind('as-robot', NAMED('as-robot'), ['ivan'], 'team')]);
  assert.equal(await can('ivan', 'impersonate serviceaccounts/robot -n team'), true);
  assert.equal(await can('ivan', 'impersonate serviceaccounts/default -n team'), false);
});

fleet.it('a tenant learns nothing of another one: not from refusals, lists, Events, watches or metrics, and holds nothing of it by ownership', async () => {
  const admin = await credentials(server.kubeconfig);
  await server.k('create namespace other');
  await server.k('create secret generic there --from-literal=a=b -n other');
  await server.apply({ ...deployment('d', { replicas: 0 }), metadata: { name: 'd', namespace: 'other' } });
  await server.apply(bind('eve', NAMED('edit'), ['eve'], 'team'));
  const eve = (method, target, body) => call(admin, method, target, body, { 'Impersonate-User': 'eve' });
  const told = async (ns, name) => {
    const r = await eve('GET', `/api/v1/namespaces/${ns}/secrets/${name}`);
    return [r.status, JSON.stringify(r.body).replaceAll(ns, 'NS').replaceAll(name, 'NAME')];
  };
  assert.deepEqual(await told('other', 'there'), await told('nonesuch', 'missing'), 'what is there is refused as what is not');
  for (const target of ['/api/v1/namespaces', '/api/v1/events', '/api/v1/secrets', '/api/v1/namespaces/other/events', '/api/v1/namespaces/other/configmaps?watch=true', '/apis/atoll.dev/v1/nodes', '/metrics']) {
    assert.equal((await eve('GET', target)).status, 403, target);
  }
  assert.equal((await eve('DELETE', '/api/v1/namespaces/team')).status, 403);
  const d = (await call(admin, 'GET', '/apis/atoll.dev/v1/namespaces/other/deployments/d')).body;
  const ownerReferences = [{ apiVersion: 'atoll.dev/v1', kind: 'Deployment', name: 'd', uid: d.metadata.uid, blockOwnerDeletion: true, controller: true }];
  assert.equal((await eve('POST', '/api/v1/namespaces/team/configmaps', { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'leech', ownerReferences } })).status, 201);
  assert.equal((await call(admin, 'DELETE', '/apis/atoll.dev/v1/namespaces/other/deployments/d?propagationPolicy=Foreground')).status, 200);
  await eventually('its owner\'s deletion is not held up by her', async () => (await call(admin, 'GET', '/apis/atoll.dev/v1/namespaces/other/deployments/d')).status === 404);
});

fleet.it('naming owners gives nobody a deletion, or a hold on one, that is not his', async () => {
  const admin = await credentials(server.kubeconfig);
  const as_ = (user) => (method, target, body, type) => call(admin, method, target, body, { 'Impersonate-User': user, ...(type ? { 'Content-Type': type } : {}) });
  const [pat, ed] = [as_('pat'), as_('eve')];
  const MERGE = 'application/merge-patch+json';
  const SECRET = '/api/v1/namespaces/team/secrets/kept';
  await server.k('create role patcher --verb=get,patch,update --resource=secrets -n team');
  await server.k('create rolebinding patcher --role=patcher --user=pat -n team');
  await server.k('create secret generic kept --from-literal=a=b -n team');
  const gone = [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'never', uid: '00000000-0000-0000-0000-000000000001' }];
  const whole = (await pat('GET', SECRET)).body;
  const tries = [
    ['PATCH', SECRET, { metadata: { ownerReferences: gone } }, MERGE],
    ['PATCH', SECRET, [{ op: 'add', path: '/metadata/ownerReferences', value: gone }], 'application/json-patch+json'],
    ['PUT', SECRET, { ...whole, metadata: { ...whole.metadata, ownerReferences: gone } }],
    ['PATCH', `${SECRET}?fieldManager=pat&force=true`, { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'kept', ownerReferences: gone } }, 'application/apply-patch+yaml'],
  ];
  for (const [method, target, body, type] of tries) {
    const r = await pat(method, target, body, type);
    assert.equal(r.status, 403, `${method} ${type}`);
    assert.match(r.body.message, /cannot set metadata.ownerReferences without the right to delete it/);
  }
  assert.equal((await pat('PATCH', SECRET, { metadata: { labels: { a: 'b' }, deletionTimestamp: '2020-01-01T00:00:00Z' } }, MERGE)).status, 200);
  const after = (await call(admin, 'GET', SECRET)).body;
  assert.deepEqual([after.metadata.labels, after.metadata.deletionTimestamp, after.data], [{ a: 'b' }, undefined, { a: Buffer.from('b').toString('base64') }]);
  // Who may change an owner may hold up its deletion; nobody else may.
  const ns = (await call(admin, 'GET', '/api/v1/namespaces/other')).body;
  const holds = (o) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: `holds-${o.kind.toLowerCase()}`, ownerReferences: [{ apiVersion: o.apiVersion, kind: o.kind, name: o.metadata.name, uid: o.metadata.uid, blockOwnerDeletion: true }] } });
  const refused = await ed('POST', '/api/v1/namespaces/team/configmaps', holds(ns));
  assert.equal(refused.status, 403);
  assert.match(refused.body.message, /may not update the owner, Namespace other/);
  const own = (await ed('POST', '/api/v1/namespaces/team/configmaps', { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'mine' } })).body;
  assert.equal((await ed('POST', '/api/v1/namespaces/team/configmaps', holds(own))).status, 201);
});

fleet.it('the end of a namespace takes all rights and tokens in it along, and one of the same name starts with none', async () => {
  const admin = await credentials(server.kubeconfig);
  await server.k('create namespace brief');
  await server.k('create rolebinding tina --clusterrole=admin --user=tina -n brief');
  await server.k('create serviceaccount robot -n brief');
  await server.k('create rolebinding robot --clusterrole=view --serviceaccount=brief:robot -n default');
  await server.k('create clusterrole ender --verb=delete --resource=namespaces --resource-name=brief');
  await server.k('create clusterrolebinding ender --clusterrole=ender --user=dana');
  const token = (await server.k('create token robot -n brief')).trim();
  const robot = () => call({ url: server.url, ca: admin.ca }, 'GET', '/api/v1/namespaces/default/configmaps', undefined, { Authorization: `Bearer ${token}` });
  assert.equal((await robot()).status, 200);
  // Held open, so that it is seen while it ends.
  await server.apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'held', namespace: 'brief', finalizers: ['example.org/hold'] } });
  const dana = (method, target) => call(admin, method, target, undefined, { 'Impersonate-User': 'dana' });
  assert.equal((await dana('DELETE', '/api/v1/namespaces/brief')).status, 200);
  assert.equal((await dana('DELETE', '/api/v1/namespaces')).status, 403);
  assert.equal((await dana('DELETE', '/api/v1/namespaces/team')).status, 403);
  await eventually('the rights are gone', async () => !(await can('tina', 'list secrets -n brief')));
  const late = [['POST', '/api/v1/namespaces/brief/configmaps', { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'late' } }], ['POST', `/apis/${RBAC}/v1/namespaces/brief/rolebindings`, bind('late', NAMED('admin'), ['tina'], 'brief')]];
  for (const user of ['tina', 'admin']) {
    for (const [method, target, body] of late) {
      const r = await call(admin, method, target, body, user === 'admin' ? {} : { 'Impersonate-User': user });
      assert.equal(r.status, 403, target);
      if (user === 'admin') assert.match(r.body.message, /because it is being terminated/);
    }
  }
  assert.equal((await robot()).status, 401);
  await server.k(['patch', 'configmap', 'held', '-n', 'brief', '--type=merge', '-p', '{"metadata":{"finalizers":null}}']);
  await eventually('it is gone', async () => (await call(admin, 'GET', '/api/v1/namespaces/brief')).status === 404);
  await server.k('create namespace brief');
  await server.k('create serviceaccount robot -n brief');
  assert.equal(await can('tina', 'list secrets -n brief'), false);
  assert.equal((await robot()).status, 401, 'a token is bound to the account it was made for, not to its name');
});
