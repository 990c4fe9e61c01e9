// Namespaces as tenants, with kubectl as their user: quotas that no race passes, ranges, and what one tenant can learn of
// another (nothing).
import assert from 'node:assert/strict';
import { Agent } from 'node:https';
import path from 'node:path';
import { Fleet, eventually } from './lib/atoll.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const instance = (name, ns, resources, more = {}) => ({ apiVersion: 'atoll.dev/v1', kind: 'Instance', metadata: { name, namespace: ns }, spec: { command: ['sleep', '1000'], ...(resources ? { resources } : {}), ...more } });
const web = (name, ns, replicas, resources) => ({ apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name, namespace: ns }, spec: { replicas, template: { spec: { command: ['sleep', '1000'], ...(resources ? { resources } : {}) } } } });
const used = async (server, ns, name) => JSON.parse(await server.k(['get', 'quota', name, '-n', ns, '-o', 'json'])).status?.used;
const usedIs = (server, ns, name, want) => eventually(`${name} says ${JSON.stringify(want)}`, async () => {
  const have = await used(server, ns, name);
  return have && Object.entries(want).every(([k, v]) => have[k] === v);
});

let server;

fleet.it('kubectl create quota bounds counts; the refusal says which quota, what was asked, used and limited', async () => {
  server = await fleet.server();
  await server.k('create namespace team');
  await server.k('create quota objects --hard=count/configmaps=2,secrets=1,count/jobs.atoll.dev=0 -n team');
  await server.k('create configmap a -n team');
  await server.k('create configmap b -n team');
  await server.kFails('create configmap c -n team', /configmaps "c" is forbidden: exceeded quota: objects, requested: count\/configmaps=1, used: count\/configmaps=2, limited: count\/configmaps=2/);
  await server.k('create secret generic s --from-literal=a=b -n team');
  await server.kFails('create secret generic t --from-literal=a=b -n team', /exceeded quota: objects, requested: secrets=1, used: secrets=1, limited: secrets=1/);
  await server.kFails(['create', '-f', '-', '-n', 'team'], /jobs\.atoll\.dev "j" is forbidden: exceeded quota: objects, requested: count\/jobs\.atoll\.dev=1/, {
    input: JSON.stringify({ apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: 'j' }, spec: { template: { spec: { command: ['true'] } } } }),
  });
  await server.k('create configmap c -n default'); // others are not bounded
  await usedIs(server, 'team', 'objects', { 'count/configmaps': '2', secrets: '1', 'count/jobs.atoll.dev': '0' });
  assert.match(await server.k('describe quota objects -n team'), /count\/configmaps\s+2\s+2/);
  await server.k('delete configmap a -n team');
  await server.k('create configmap c -n team');
  await server.kFails('create configmap d -n team --dry-run=server', /exceeded quota/); // a dry run asks too, and takes nothing
  await usedIs(server, 'team', 'objects', { 'count/configmaps': '2' });
});

fleet.it('resources: cpu, memory, gpu and storage of instances, made by people and by Deployments', async () => {
  await server.k('create namespace compute');
  await server.k('create quota q --hard=requests.cpu=2,memory=2Gi,gpu=1,requests.storage=10Gi,pods=5 -n compute');
  const make = (i) => server.kubectl(['create', '-f', '-'], { input: JSON.stringify(i) });
  const ok = async (i) => {
    const r = await make(i);
    assert.equal(r.code, 0, r.err);
  };
  const no = async (i, why) => {
    const r = await make(i);
    assert.notEqual(r.code, 0);
    assert.match(r.err, why);
  };
  await ok(instance('a', 'compute', { cpu: '1500m', memory: '1Gi', gpu: '0.5', disk: '8Gi' }));
  await no(instance('b', 'compute', { cpu: '501m', memory: '1Mi' }), /exceeded quota: q, requested: requests\.cpu=501m, used: requests\.cpu=1500m, limited: requests\.cpu=2/);
  await no(instance('b', 'compute', { cpu: '100m', memory: '2Gi' }), /requested: memory=2Gi, used: memory=1Gi, limited: memory=2Gi/);
  await no(instance('b', 'compute', { cpu: '100m', memory: '1Mi', gpu: 1 }), /requested: gpu=1, used: gpu=500m, limited: gpu=1/);
  await no(instance('b', 'compute', { cpu: '100m', memory: '1Mi', disk: '3Gi' }), /requested: requests\.storage=3Gi, used: requests\.storage=8Gi, limited: requests\.storage=10Gi/);
  await no(instance('b', 'compute', { cpu: '100m' }), /failed quota: q: must specify memory/);
  await no(instance('b', 'compute'), /must specify (requests\.cpu,memory|memory,requests\.cpu)/);
  await usedIs(server, 'compute', 'q', { 'requests.cpu': '1500m', memory: '1Gi', gpu: '500m', 'requests.storage': '8Gi', pods: '1' });
  // A Deployment gets as many copies as there is room for, and says why there are no more.
  await server.apply(web('web', 'compute', 4, { cpu: '200m', memory: '64Mi' }));
  await usedIs(server, 'compute', 'q', { 'requests.cpu': '1900m', pods: '3' });
  await eventually('the Deployment says why', async () => {
    const d = JSON.parse(await server.k('get deployments.atoll.dev web -n compute -o json'));
    const c = d.status?.conditions?.find((x) => x.type === 'ReplicaFailure');
    return c?.status === 'True' && /exceeded quota: q, requested: requests\.cpu=200m/.test(c.message);
  });
  await eventually('an Event tells', async () => /FailedCreate.*exceeded quota: q/.test(await server.k('get events -n compute')));
  // Room that is made is used at once.
  await server.k('delete instances.atoll.dev a -n compute');
  await usedIs(server, 'compute', 'q', { 'requests.cpu': '800m', pods: '4' });
  await eventually('all is well', async () => JSON.parse(await server.k('get deployments.atoll.dev web -n compute -o json')).status.conditions.find((x) => x.type === 'ReplicaFailure').status === 'False');
  // A greater bound is used at once too.
  await server.k(['patch', 'deployments.atoll.dev', 'web', '-n', 'compute', '--type=merge', '-p', '{"spec":{"replicas":6}}']);
  await usedIs(server, 'compute', 'q', { pods: '5' });
  await server.k(['patch', 'quota', 'q', '-n', 'compute', '--type=merge', '-p', '{"spec":{"hard":{"pods":"6"}}}']);
  await usedIs(server, 'compute', 'q', { pods: '6' });
});

fleet.it('no race passes a quota: sixty clients at once, and it is exact after kill -9', async () => {
  await server.k('create namespace race');
  await server.k('create quota q --hard=count/configmaps=20,requests.cpu=5 -n race');
  const admin = await credentials(server.kubeconfig);
  const many = await Promise.all(Array.from({ length: 60 }, (_, i) => call(admin, 'POST', '/api/v1/namespaces/race/configmaps', { metadata: { name: `c${i}` } })));
  assert.equal(many.filter((r) => r.status === 201).length, 20);
  assert.equal(many.filter((r) => r.status === 403).length, 40);
  const cpus = await Promise.all(Array.from({ length: 40 }, (_, i) => call(admin, 'POST', '/apis/atoll.dev/v1/namespaces/race/instances', instance(`i${i}`, 'race', { cpu: '400m' }))));
  assert.equal(cpus.filter((r) => r.status === 201).length, 12);
  await usedIs(server, 'race', 'q', { 'count/configmaps': '20', 'requests.cpu': '4800m' });
  const pid = server.proc.child.pid;
  const half = Array.from({ length: 30 }, (_, i) => call(admin, 'DELETE', `/api/v1/namespaces/race/configmaps/c${i}`).catch(() => null));
  setTimeout(() => process.kill(pid, 'SIGKILL'), 15);
  await Promise.all(half);
  await server.proc.exited;
  await server.start();
  const left = JSON.parse(await server.k('get configmaps -n race -o json')).items.length;
  await usedIs(server, 'race', 'q', { 'count/configmaps': String(left) });
  const again = await Promise.all(Array.from({ length: 60 }, (_, i) => call(admin, 'POST', '/api/v1/namespaces/race/configmaps', { metadata: { name: `d${i}` } })));
  assert.equal(again.filter((r) => r.status === 201).length, 20 - left);
});

fleet.it('a LimitRange gives defaults and bounds', async () => {
  await server.k('create namespace ranges');
  await server.apply({ apiVersion: 'v1', kind: 'LimitRange', metadata: { name: 'r', namespace: 'ranges' }, spec: { limits: [{ type: 'Container', default: { cpu: '250m', memory: '64Mi' }, max: { cpu: '1' }, min: { memory: '32Mi' } }] } });
  await server.k('create quota q --hard=requests.cpu=1,requests.memory=1Gi -n ranges');
  await server.k(['create', '-f', '-'], { input: JSON.stringify(instance('a', 'ranges')) });
  const a = JSON.parse(await server.k('get instances.atoll.dev a -n ranges -o json'));
  assert.equal(a.spec.resources.cpu, '250m');
  assert.equal(a.spec.resources.memory, '64Mi');
  await server.kFails(['create', '-f', '-'], /maximum cpu usage per Container is 1, but limit is 2/, { input: JSON.stringify(instance('b', 'ranges', { cpu: 2 })) });
  await server.kFails(['create', '-f', '-'], /minimum memory usage per Container is 32Mi, but limit is 16Mi/, { input: JSON.stringify(instance('b', 'ranges', { memory: '16Mi' })) });
  await server.apply(web('web', 'ranges', 2));
  await usedIs(server, 'ranges', 'q', { 'requests.cpu': '750m', 'requests.memory': '192Mi' });
});

fleet.it('odd quotas, ranges and policies are refused with the field', async () => {
  const odd = async (object, why) => {
    const r = await server.kubectl(['create', '-f', '-'], { input: JSON.stringify(object) });
    assert.notEqual(r.code, 0, JSON.stringify(object));
    assert.match(r.err, why);
  };
  const quota = (hard, more = {}) => ({ apiVersion: 'v1', kind: 'ResourceQuota', metadata: { name: 'odd', namespace: 'team' }, spec: { hard, ...more } });
  const policy = (spec) => ({ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'odd', namespace: 'team' }, spec: { podSelector: {}, ...spec } });
  await odd(quota({ cpu: '-1' }), /spec\.hard.*cpu/);
  await odd(quota({ cpu: 'much' }), /spec\.hard.*cpu/);
  await odd(quota({ 'count/configmaps': '1.5' }), /spec\.hard/);
  await odd(quota({ 'a b': '1' }), /no name of a resource/);
  await odd(quota({ cpu: '1' }, { scopes: ['Terminating'] }), /scopes/);
  await odd(policy({ ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0' } }] }] }), /cidr/);
  await odd(policy({ ingress: [{ from: [{}] }] }), /must specify a peer/);
  await odd(policy({ ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8' }, podSelector: {} }] }] }), /together/);
  await odd(policy({ egress: [{ ports: [{ port: 'http' }] }] }), /1 to 65535/);
  await odd(policy({ egress: [{ ports: [{ port: 9, endPort: 8 }] }] }), /endPort/);
});

fleet.it('a tenant reads its quota and does not change it', async () => {
  await server.k('create rolebinding ed --clusterrole=admin --user=ed -n team');
  await server.k('get quota -n team --as ed');
  await server.kFails('delete quota objects -n team --as ed', /cannot delete/);
  await server.kFails(['patch', 'quota', 'objects', '-n', 'team', '--type=merge', '-p', '{"spec":{"hard":{"secrets":"100"}}}', '--as', 'ed'], /cannot patch/);
  await server.kFails('create quota more --hard=pods=1 -n team --as ed', /cannot create/);
});

fleet.it('a tenant learns neither names nor counts of another: every route, lists in pages, forged pages, watches, reviews', async () => {
  const WORD = 'zanzibar'; // in every name of the other tenant's, and nowhere else
  await server.k('create namespace mine');
  await server.k(`create namespace ${WORD}`);
  await server.k('create rolebinding ed --clusterrole=admin --user=tenant -n mine');
  for (let i = 0; i < 7; i++) await server.k(`create configmap ${WORD}-${i} -n ${WORD}`);
  await server.k(`create secret generic ${WORD} --from-literal=a=b -n ${WORD}`);
  await server.k(`create quota ${WORD} --hard=pods=3,cpu=1 -n ${WORD}`);
  await server.apply([web(WORD, WORD, 5, { cpu: '300m', memory: '1Mi' }), { apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: WORD, namespace: WORD }, spec: { template: { spec: { command: ['true'] } } } }]);
  for (let i = 0; i < 5; i++) await server.k(`create configmap m${i} -n mine`);
  const admin = { ...(await credentials(server.kubeconfig)), agent: new Agent({ keepAlive: true }) };
  const seen = [];
  const tenant = async (method, target, body, headers = {}) => {
    const r = await call(admin, method, target, body, { 'Impersonate-User': 'tenant', ...headers });
    seen.push([`${method} ${target}`, JSON.stringify(r.body) + JSON.stringify(r.headers)]);
    return r;
  };
  // Every kind, in every way, as the server itself lists them.
  const groups = { v1: '/api/v1' };
  for (const g of (await call(admin, 'GET', '/apis')).body.groups) for (const v of g.versions) groups[v.groupVersion] = `/apis/${v.groupVersion}`;
  for (const base of Object.values(groups)) {
    const resources = (await call(admin, 'GET', base)).body.resources ?? [];
    for (const r of resources.filter((x) => !x.name.includes('/') && x.verbs.includes('list'))) {
      const places = r.namespaced ? [`${base}/namespaces/${WORD}/${r.name}`, `${base}/${r.name}`] : [`${base}/${r.name}`];
      for (const place of places) {
        assert.equal((await tenant('GET', place)).status, 403, place);
        assert.equal((await tenant('GET', `${place}?watch=true&timeoutSeconds=1`)).status, 403, place);
        assert.ok([403, 405].includes((await tenant('DELETE', place)).status), place);
      }
      if (r.namespaced) {
        // There or not there: the answer is the same but for the name that was asked for.
        const [there, absent] = [await tenant('GET', `${base}/namespaces/${WORD}/${r.name}/${WORD}`), await tenant('GET', `${base}/namespaces/nosuchplace/${r.name}/nosuchname`)];
        assert.equal(there.status, 403);
        assert.equal(absent.status, 403);
        const plain = (x) => JSON.stringify(x.body).replaceAll(WORD, 'X').replaceAll('nosuchplace', 'X').replaceAll('nosuchname', 'X');
        assert.equal(plain(there), plain(absent));
        seen.splice(-2);
        assert.equal((await tenant('GET', `${base}/namespaces/mine/${r.name}`)).status, 200);
      }
    }
  }
  seen.splice(0, seen.length, ...seen.map(([what, text]) => [what, text.replaceAll(new RegExp(`"[^"]*namespace \\\\"${WORD}\\\\"[^"]*"`, 'g'), '')])); // what was asked for comes back in refusals
  for (const [what, text] of seen.filter(([w]) => !w.includes(WORD))) assert.ok(!text.includes(WORD), `${what}: ${text}`);
  seen.length = 0;
  // Pages of one's own list count one's own alone, and a token that was tampered with leads nowhere else.
  const page = await tenant('GET', '/api/v1/namespaces/mine/configmaps?limit=2');
  assert.equal(page.body.metadata.remainingItemCount, 3);
  const token = JSON.parse(Buffer.from(page.body.metadata.continue, 'base64url').toString());
  for (const start of [token.start.replaceAll('mine', WORD), token.start.replace(/mine.*$/, ''), '/atoll/', `/atoll/core/configmaps/mine/../${WORD}/`, token.start.replace('configmaps', 'secrets')]) {
    const forged = Buffer.from(JSON.stringify({ ...token, start })).toString('base64url');
    const r = await tenant('GET', `/api/v1/namespaces/mine/configmaps?limit=50&continue=${forged}`);
    assert.ok(r.status === 400 || r.body.items.every((o) => o.metadata.namespace === 'mine'), `${start}: ${JSON.stringify(r.body)}`);
  }
  // Selectors, tables, metadata alone.
  await tenant('GET', `/api/v1/namespaces/mine/configmaps?fieldSelector=metadata.namespace%3D${WORD.slice(0, 4)}`);
  await tenant('GET', '/api/v1/namespaces/mine/events', undefined, { Accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' });
  await tenant('GET', '/api/v1/namespaces/mine/configmaps', undefined, { Accept: 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io' });
  // Paths that are no resources.
  for (const path of ['/metrics', '/admin/v1/backup', '/join/v1/servers', '/logs', '/debug/pprof']) assert.notEqual((await tenant('GET', path)).status, 200, path);
  // What one may is all that a review tells.
  await tenant('POST', '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews', { spec: { namespace: 'mine' } });
  assert.equal((await tenant('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', { spec: { user: 'x', resourceAttributes: {} } })).status, 403);
  // A watch of one's own shows nothing while the other tenant is busy.
  const watch = tenant('GET', '/api/v1/namespaces/mine/configmaps?watch=true&timeoutSeconds=2&allowWatchBookmarks=true');
  await server.k(`create configmap ${WORD}-late -n ${WORD}`);
  await server.k(`delete configmap ${WORD}-0 -n ${WORD}`);
  await watch;
  for (const [what, text] of seen) assert.ok(!text.includes(WORD), `${what}: ${text}`);
  // And the public page of metrics has no names of namespaces or objects in its labels.
  assert.doesNotMatch((await call(admin, 'GET', '/metrics')).body, new RegExp(WORD));
  admin.agent.destroy();
});

fleet.it('who is displaced, or waits, learns nothing of who it is for', async () => {
  const server = await fleet.server(); // where nothing else waits for room
  await server.apply({ apiVersion: 'atoll.dev/v1', kind: 'Site', metadata: { name: 'here' }, spec: { class: 'edge', jurisdiction: 'EU' } });
  const admin = await credentials(server.kubeconfig);
  const join = (await call(admin, 'POST', '/join/v1/tokens', { role: 'agent', site: 'here', ttl: '1h' })).body;
  const devices = await fleet.file('devices.json', JSON.stringify({ capacity: { cpu: '2', memory: '4Gi' }, gpus: [] }));
  const agent = fleet.start('agent', ['agent', '--server', server.url, '--token', join.token, '--ca-pin', join.caPin, '--name', 'n1', '--state', await fleet.dir('atoll-agent'), '--stop-instances', '--devices', devices]);
  await agent.line(/^ready agent /m);
  await server.k('create namespace low');
  await server.k('create namespace zanzibari');
  await server.apply(instance('small', 'low', { cpu: '1500m', memory: '16Mi' }));
  await eventually('it runs', async () => JSON.parse(await server.k('get instances.atoll.dev small -n low -o json')).status?.phase === 'Running');
  // What stands in the way of the other is not named to it.
  await server.apply(instance('zanzibari', 'zanzibari', { cpu: '1500m', memory: '16Mi' }, { priority: 100, preemptionPolicy: 'Never' }));
  const waiting = await eventually('it is told why', async () => JSON.parse(await server.k('get instances.atoll.dev zanzibari -n zanzibari -o json')).status?.decision);
  assert.doesNotMatch(JSON.stringify(waiting), /small|low\//);
  await server.k('delete instances.atoll.dev zanzibari -n zanzibari');
  await server.apply(instance('zanzibari', 'zanzibari', { cpu: '1500m', memory: '16Mi' }, { priority: 100 }));
  await eventually('an Event tells the displaced', async () => {
    const events = await server.k('get events -n low -o json');
    assert.doesNotMatch(events, /zanzibari/);
    return /Preempted/.test(events) && /an instance of another namespace/.test(events);
  });
  assert.doesNotMatch(await server.k('get events -n zanzibari -o json'), /small|low\//);
});

fleet.it('whose model has a name already is not told to another tenant', async () => {
  const server = await fleet.server();
  const model = (name, ns) => ({ apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name, namespace: ns }, spec: { replicas: 0, template: { spec: { runner: 'onnx', model: { name: 'churn', uri: 'file:churn.onnx' } } } } });
  for (const ns of ['zanzibari', 'zeta']) await server.k(`create namespace ${ns}`);
  // Of two that come within a second the one of the first namespace has the name.
  await server.apply(model('umbrella', 'zanzibari'));
  await eventually('the first has its status', async () => (await server.get('deployments.atoll.dev umbrella -n zanzibari')).status?.observedGeneration);
  await server.apply(model('ours', 'zeta'));
  const told = await eventually('the second is told', async () => {
    const status = JSON.stringify((await server.get('deployments.atoll.dev ours -n zeta')).status);
    return /NameTaken/.test(status) && status;
  });
  assert.match(told, /an older Deployment of another namespace; ask for zeta\/churn/);
  const events = await eventually('an Event says so', async () => {
    const text = await server.k('get events -n zeta -o json');
    return /ModelNameTaken/.test(text) && text;
  });
  for (const text of [told, events]) assert.doesNotMatch(text, /zanzibari|umbrella/);
});

fleet.it('two servers on one etcd: together they let in exactly what the quota says', async () => {
  const etcd = await Etcd.start(fleet);
  const pki = path.join(await fleet.dir('atoll-pki'), 'pki');
  const args = ['--store', `etcd:${etcd.url}`, '--pki', pki];
  const one = await fleet.server({ args });
  const two = await fleet.server({ args });
  await one.k('create namespace race');
  await one.k('create quota q --hard=count/configmaps=15,requests.cpu=3 -n race');
  const [a, b] = [await credentials(one.kubeconfig), await credentials(two.kubeconfig)];
  await eventually('the second server knows the quota', async () => (await call(b, 'GET', '/api/v1/namespaces/race/resourcequotas/q')).status === 200);
  const many = await Promise.all(Array.from({ length: 50 }, (_, i) => call(i % 2 ? a : b, 'POST', '/api/v1/namespaces/race/configmaps', { metadata: { name: `c${i}` } })));
  assert.equal(many.filter((r) => r.status === 201).length, 15, JSON.stringify(many.map((r) => r.status)));
  assert.equal(many.filter((r) => r.status === 403).length, 35);
  // A Deployment's copies, made by whoever leads, beside people's own.
  await one.apply(web('web', 'race', 8, { cpu: '300m', memory: '16Mi' }));
  await Promise.all(Array.from({ length: 10 }, (_, i) => call(i % 2 ? a : b, 'POST', '/apis/atoll.dev/v1/namespaces/race/instances', instance(`i${i}`, 'race', { cpu: '300m', memory: '16Mi' }))));
  await usedIs(one, 'race', 'q', { 'requests.cpu': '3', 'count/configmaps': '15' });
  const all = JSON.parse(await two.k('get instances.atoll.dev -n race -o json')).items;
  assert.equal(all.length, 10);
  // Nothing is left under way.
  await one.proc.kill();
  const freed = await call(b, 'DELETE', '/api/v1/namespaces/race/configmaps/' + many.find((r) => r.status === 201).body.metadata.name);
  assert.equal(freed.status, 200);
  const again = await Promise.all(Array.from({ length: 20 }, (_, i) => call(b, 'POST', '/api/v1/namespaces/race/configmaps', { metadata: { name: `d${i}` } })));
  assert.equal(again.filter((r) => r.status === 201).length, 1);
}, { skip: ETCD_MISSING });
