// The everyday commands, by every kubectl that is found: ours, the distribution's, and those of an SDK beside it.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { deployment, Fleet, KUBECTLS, run, yaml } from '../e2e/lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let s;

before(async () => {
  s = await fleet.server();
});

const app = (replicas) => yaml(deployment('app', { replicas, template: { spec: { command: ['sleep', '1'] } } }, { labels: { app: 'x' } }));

// [command, input, pattern of the output, oldest minor version that has it]; run in order, in a namespace of its own.
const COMMANDS = [
  ['version', , /Server Version|serverVersion/i],
  ['api-resources', , /deployments/],
  ['api-versions', , /atoll\.dev\/v1/],
  ['apply -f -', app(2), /app created/],
  ['apply -f -', app(2), /app unchanged/],
  ['apply -f -', app(3), /app configured/],
  ['apply -f - --dry-run=server', app(4), /configured \(server dry run\)/],
  ['diff -f -', app(4), /\+ +replicas: 4/],
  ['apply view-last-applied deploy.atoll.dev/app', , /replicas: 3/],
  ['get deploy', , /^NAME +READY/],
  ['get deploy app -o wide --show-labels -L app', , /app=x/],
  ['get deploy -A', , /NAMESPACE/],
  ['get deploy app -o jsonpath={.spec.replicas}', , /^3$/],
  ['get deploy --sort-by=.spec.replicas', , /app/],
  ['get deploy -l app=x -o name', , /deployment\.atoll\.dev\/app/],
  ['get deploy app --subresource=scale -o jsonpath={.spec.replicas}', , /^3$/, 24],
  ['describe deploy app', , /Name: +app/],
  ['scale deploy.atoll.dev/app --replicas=4', , /scaled/],
  ['scale deploy.atoll.dev/app --replicas=1 --current-replicas=4', , /scaled/],
  ['label deploy app a=b', , /labeled/],
  ['annotate deploy app a=b', , /annotate/],
  ['patch deploy app --type=merge -p {"spec":{"replicas":2}}', , /patched/],
  ['patch deploy app --type=json -p [{"op":"replace","path":"/spec/replicas","value":1}]', , /patched/],
  ['replace --force -f -', app(2), /replaced/],
  ['wait --for=jsonpath={.spec.replicas}=2 deploy/app --timeout=10s', , /condition met/, 23],
  ['create configmap c --from-literal=a=b', , /created/],
  ['create secret generic s --from-literal=a=b', , /created/],
  ['patch cm c -p {"data":{"c":"d"}}', , /patched/],
  ['apply --server-side -f -', app(2), /serverside-applied/],
  ['explain deploy.spec.template.spec', , /FIELDS/],
  ['explain pods', , /FIELDS/],
  ['get events', , /REASON|No resources/],
  ['auth can-i create deployments', , /yes/],
  ['auth can-i --list', , /Resources/],
  ['auth can-i list sites --as=eve --as-group=atoll:viewers', , /yes/],
  ['auth whoami', , /admin/, 28],
  ['get --raw /readyz?verbose', , /ok/],
  ['delete cm --all', , /deleted/],
  ['delete deploy.atoll.dev app --cascade=foreground', , /deleted/],
];

const words = (line) => (line.includes('{') || line.includes('[') ? line.split(/ (?![^{]*})/) : line.split(' '));

for (const kubectl of KUBECTLS) {
  it(`everyday commands: ${kubectl.version}`, async () => {
    const ns = `k${kubectl.version.replace(/\W+/g, '-')}`;
    const env = { KUBECONFIG: s.kubeconfig, HOME: await fleet.dir('atoll-home') };
    assert.equal((await run(kubectl.path, ['create', 'namespace', ns], { env })).code, 0);
    for (const [command, input, pattern, since = 0] of COMMANDS) {
      if (kubectl.minor < since) continue;
      const r = await run(kubectl.path, ['-n', ns, ...words(command)], { env, input });
      const fine = r.code === (command.startsWith('diff') ? 1 : 0) && pattern.test(r.out);
      assert.ok(fine, `kubectl ${command}: exit ${r.code}\n${r.out}\n${r.err}`);
    }
    assert.equal((await run(kubectl.path, ['delete', 'namespace', ns], { env })).code, 0);
  });
}
