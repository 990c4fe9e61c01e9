// Roles, bindings and service accounts as stored kinds, made by kubectl's own commands.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { Fleet, KUBECTLS, run, yaml } from '../e2e/lib/atoll.mjs';

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
