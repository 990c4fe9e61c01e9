// Roles, bindings and service accounts as stored kinds, made by kubectl's own commands.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Fleet, KUBECTLS, run, yaml } from '../e2e/lib/atoll.mjs';
import { call, credentials } from '../e2e/lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;

before(async () => {
  s = await fleet.server();
});

const GROUP = 'rbac.authorization.k8s.io';
const role = (verbs, resources) => ({ apiVersion: `${GROUP}/v1`, kind: 'Role', metadata: { name: 'kept', namespace: 'team' }, rules: [{ verbs, apiGroups: [''], resources }] });
const binding = (users) => ({
  apiVersion: `${GROUP}/v1`,
  kind: 'RoleBinding',
  metadata: { name: 'kept', namespace: 'team' },
  roleRef: { apiGroup: GROUP, kind: 'ClusterRole', name: 'view' },
  subjects: users.map((name) => ({ apiGroup: GROUP, kind: 'User', name })),
});

for (const { path, version } of KUBECTLS) {
  it(`roles, bindings and service accounts are made, shown and described: ${version}`, async () => {
    const ns = `r${version.replace(/\W+/g, '-')}`;
    const env = { KUBECONFIG: s.kubeconfig, HOME: await fleet.dir('atoll-home') };
    const k = async (args, input) => {
      const r = await run(path, [...args.split(' '), '-n', ns], { env, input });
      assert.equal(r.code, 0, `${args}\n${r.out}\n${r.err}`);
      return r.out;
    };
    await k(`create namespace ${ns}`);
    await k('create role reader --verb=get,list --resource=pods,deployments.atoll.dev,pods/log --resource-name=a');
    await k('create rolebinding readers --role=reader --user=ann --group=team --serviceaccount=default:bot');
    await k(`create clusterrole ${ns}:paths --verb=get --non-resource-url=/logs/*`);
    await k(`create clusterrole ${ns}-all --aggregation-rule=team=${ns}`);
    await k(`create clusterrolebinding ${ns} --clusterrole=${ns}:paths --serviceaccount=default:bot`);
    await k('create serviceaccount bot');

    const live = JSON.parse(await k('get role reader -o json'));
    assert.deepEqual(live.rules[0], { verbs: ['get', 'list'], apiGroups: [''], resources: ['pods', 'pods/log'], resourceNames: ['a'] });
    assert.equal(live.metadata.generation, undefined); // as in Kubernetes
    assert.deepEqual(JSON.parse(await k('get rolebinding readers -o json')).subjects, [
      { kind: 'User', apiGroup: GROUP, name: 'ann' },
      { kind: 'Group', apiGroup: GROUP, name: 'team' },
      { kind: 'ServiceAccount', name: 'bot', namespace: 'default' },
    ]);
    assert.match(await k('get role'), /^NAME +CREATED AT\nreader +20\d\d-\d\d-\d\dT/);
    const wide = await k('get rolebinding -o wide');
    assert.match(wide, /^NAME +ROLE +AGE +USERS +GROUPS +SERVICEACCOUNTS\nreaders +Role\/reader +\d+s +ann +team +default\/bot/);
    assert.match(await k('get sa'), /^NAME +SECRETS +AGE\nbot +0 /);
    assert.match(await k(`get clusterrolebinding ${ns}`), new RegExp(`ClusterRole/${ns}:paths`));
    assert.match(await k('describe role reader'), /deployments\.atoll\.dev +\[\] +\[a\] +\[get list\]/);
    assert.match(await k('describe rolebinding readers'), /ServiceAccount +bot +default/);
    assert.match(await k('describe sa bot'), /Name: +bot/);
    await k('set subject rolebinding readers --user=zed');
    assert.match(await k('get rolebinding -o wide'), /ann, zed/);
    await k(`delete clusterrole,clusterrolebinding -l none=none`);
    await k(`delete clusterrole ${ns}:paths ${ns}-all`);
    await k(`delete clusterrolebinding ${ns}`);
  });

  it(`auth reconcile makes, extends and prunes: ${version}`, async () => {
    const env = { KUBECONFIG: s.kubeconfig, HOME: await fleet.dir('atoll-home') };
    const reconcile = async (objects, ...more) => {
      const r = await run(path, ['auth', 'reconcile', '-f', '-', ...more], { env, input: yaml(objects) });
      assert.equal(r.code, 0, r.err);
      return r.out;
    };
    assert.match(await reconcile([role(['get'], ['pods']), binding(['ann'])]), /role.*kept reconciled/);
    await reconcile([role(['list'], ['secrets']), binding(['bob'])]);
    const verbs = async () => (await s.get('role kept -n team')).rules.map((r) => `${r.verbs} ${r.resources}`).sort();
    const users = async () => (await s.get('rolebinding kept -n team')).subjects.map((x) => x.name).sort();
    assert.deepEqual(await verbs(), ['get pods', 'list secrets']); // made the namespace, and adds
    assert.deepEqual(await users(), ['ann', 'bob']);
    await reconcile([role(['list'], ['secrets']), binding(['bob'])], '--remove-extra-permissions', '--remove-extra-subjects');
    assert.deepEqual(await verbs(), ['list secrets']);
    assert.deepEqual(await users(), ['bob']);
    // Another role cannot be bound by the same name: reconcile makes the binding anew.
    const other = { ...binding(['bob']), roleRef: { apiGroup: GROUP, kind: 'Role', name: 'kept' } };
    await s.kFails(['apply', '-f', '-'], /cannot change roleRef/, { input: yaml(other) });
    await reconcile([other]);
    assert.equal((await s.get('rolebinding kept -n team')).roleRef.kind, 'Role');
    await s.k('delete namespace team');
  });
}

it('bad roles and bindings are refused with the field', async () => {
  const refuse = (object, pattern) => s.kFails(['create', '-f', '-'], pattern, { input: yaml(object) });
  await refuse({ ...role([], ['pods']), metadata: { name: 'x' } }, /rules\[0\]\.verbs: Required value/);
  await refuse({ ...binding(['a']), metadata: { name: 'x' }, roleRef: { apiGroup: GROUP, kind: 'Nothing', name: 'x' } }, /roleRef\.kind: Unsupported value/);
  await refuse({ ...role(['get'], ['pods']), metadata: { name: 'x' }, rulez: [] }, /unknown field "rulez"/);
});

it('create token gives a service account a token that is good while the account is there', async () => {
  const admin = await credentials(s.kubeconfig);
  const whoami = async (token) => {
    const r = await call({ url: admin.url, ca: admin.ca }, 'POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', {}, { Authorization: `Bearer ${token}` });
    return r.status === 201 ? r.body.status.userInfo : r.status;
  };
  await s.k('create sa robot');
  const token = (await s.k('create token robot')).trim();
  assert.deepEqual(await whoami(token), {
    username: 'system:serviceaccount:default:robot',
    groups: ['system:serviceaccounts', 'system:serviceaccounts:default', 'system:authenticated'],
  });
  const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
  assert.equal(claims.exp - claims.iat, 3600);
  assert.equal(claims.sub, 'system:serviceaccount:default:robot');
  // Without a role it may do nothing.
  const refused = await call({ url: admin.url, ca: admin.ca }, 'GET', '/api/v1/namespaces/default/secrets', undefined, { Authorization: `Bearer ${token}` });
  assert.equal(refused.status, 403);
  assert.match(refused.body.message, /User "system:serviceaccount:default:robot" cannot list resource "secrets"/);

  // A token for others does not open this server; TokenReview tells them whose it is.
  const foreign = (await s.k('create token robot --audience=vault --duration=20m')).trim();
  assert.equal(await whoami(foreign), 401);
  const review = async (spec) => (await call(admin, 'POST', '/apis/authentication.k8s.io/v1/tokenreviews', { spec })).body.status;
  const uid = (await s.get('sa robot')).metadata.uid;
  assert.deepEqual(await review({ token: foreign, audiences: ['vault', 'x'] }), {
    authenticated: true,
    user: { username: 'system:serviceaccount:default:robot', groups: ['system:serviceaccounts', 'system:serviceaccounts:default', 'system:authenticated'], uid },
    audiences: ['vault'],
  });
  assert.equal((await review({ token: foreign })).authenticated, false);
  assert.equal((await review({ token: `${token.slice(0, -3)}AAA` })).authenticated, false);

  await s.k('create secret generic key');
  const bound = (await s.k('create token robot --bound-object-kind=Secret --bound-object-name=key')).trim();
  assert.equal((await whoami(bound)).username, 'system:serviceaccount:default:robot');
  await s.k('delete secret key');
  assert.equal(await whoami(bound), 401);

  await s.kFails('create token robot --duration=1m', /expirationSeconds: Invalid value: may not specify a duration less than 10 minutes/);
  await s.kFails('create token nobody', /serviceaccounts "nobody" not found/);
  await s.kFails('create token robot --bound-object-kind=Secret --bound-object-name=gone', /"gone" does not exist/);

  await s.restart();
  assert.equal((await whoami(token)).username, 'system:serviceaccount:default:robot');
  await s.k('delete sa robot');
  assert.equal(await whoami(token), 401);
  await s.k('create sa robot'); // another one of the same name
  assert.equal(await whoami(token), 401);
});

it('a LocalSubjectAccessReview is of its own namespace', async () => {
  const admin = await credentials(s.kubeconfig);
  const ask = (ns, attributes) =>
    call(admin, 'POST', `/apis/authorization.k8s.io/v1/namespaces/${ns}/localsubjectaccessreviews`, {
      spec: { user: 'eve', groups: ['atoll:viewers'], resourceAttributes: attributes },
    });
  const yes = await ask('default', { namespace: 'default', verb: 'list', group: 'atoll.dev', resource: 'jobs' });
  assert.equal(yes.body.kind, 'LocalSubjectAccessReview');
  assert.equal(yes.body.status.allowed, true);
  assert.equal((await ask('default', { namespace: 'default', verb: 'create', group: 'atoll.dev', resource: 'jobs' })).body.status.allowed, false);
  const other = await ask('default', { namespace: 'elsewhere', verb: 'list', group: 'atoll.dev', resource: 'jobs' });
  assert.equal(other.status, 422);
  assert.match(await s.k('api-resources --api-group=authorization.k8s.io'), /localsubjectaccessreviews +authorization\.k8s\.io\/v1 +true/);
});
