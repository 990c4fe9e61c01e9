// The command line against a whole Atoll: what its help promises, with its exit statuses and words.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { processesWith } from './lib/cluster.mjs';
import { ATOLL, eventually, Fleet, ROOT, run, yaml } from './lib/atoll.mjs';

const QUICKSTART = path.join(ROOT, 'examples/quickstart');
const fleet = new Fleet();
const it = fleet.it.bind(fleet);

const state = await fleet.dir('atoll-cli');
const devices = await fleet.file('gpus.json', JSON.stringify({
  capacity: { cpu: '16', memory: '16Gi' },
  gpus: [{ id: 'g0', model: 'A100', memory: '40Gi' }, { id: 'g1', model: 'A100', memory: '40Gi' }],
}));
const dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--models', path.join(QUICKSTART, 'models'), '--site', 'onprem', '--site', `edge=${devices}`]);
await dev.line(/^ready dev$/m);
const env = { KUBECONFIG: path.join(state, 'admin.kubeconfig'), HOME: state, PATH: `${path.dirname(ATOLL)}:${process.env.PATH}`, NO_COLOR: '1' };

async function atoll(args, options = {}) {
  const r = await run(ATOLL, args.split(' '), { env, ...options });
  assert.equal(r.code, 0, `atoll ${args}: exit ${r.code}\n${r.out}\n${r.err}`);
  return r.out;
}

async function fails(args, code, words) {
  const r = await run(ATOLL, args.split(' '), { env });
  assert.equal(r.code, code, `atoll ${args}\n${r.out}\n${r.err}`);
  assert.match(r.err, words);
}

const items = async (args) => JSON.parse(await atoll(`get ${args} -o json`)).items;

function deployment(name, spec, replicas = 1) {
  return { apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name }, spec: { replicas, template: { spec: { resources: { cpu: '50m', memory: '32Mi' }, terminationGracePeriod: '1s', ...spec } } } };
}
const sleeper = (name, spec = {}, replicas = 1) => deployment(name, { command: ['sleep', '1000'], ...spec }, replicas);
const apply = (...objects) => atoll('apply -f -', { input: yaml(objects) });

it('apply, wait, and every form of output', async () => {
  assert.match(await apply(sleeper('forms', {}, 2)), /deployment\.atoll\.dev\/forms created/);
  assert.match(await apply(sleeper('forms', {}, 2)), /unchanged/);
  assert.match(await atoll('wait deployment/forms --for=condition=Ready --timeout=30s'), /condition met/);
  const [one, two] = await items('instances -l atoll.dev/deployment=forms');
  assert.equal(two.status.phase, 'Running');
  assert.match(await atoll(`get instance ${one.metadata.name} -o yaml`), /^ {2}phase: Running$/m);
  assert.equal((await atoll(`get instance/${one.metadata.name} -o name`)).trim(), `instance.atoll.dev/${one.metadata.name}`);
  assert.equal((await atoll(`get instance ${one.metadata.name} -o jsonpath={.status.phase}`)).trim(), 'Running');
  const narrow = (await atoll('get instances')).split('\n')[0];
  const wide = (await atoll('get instances -o wide')).split('\n')[0];
  assert.match(narrow, /^NAME +PHASE +READY/);
  assert.ok(wide.length > narrow.length && /ENDPOINT/.test(wide), wide);
  assert.doesNotMatch(await atoll('get instances --no-headers'), /NAME/);
  assert.match(await atoll('get sites,nodes'), /site\.atoll\.dev\/onprem[\s\S]*node\.atoll\.dev\/edge-1/);
  assert.match(await atoll('version'), /client: v\d[\s\S]*server: v\d/);
  assert.match(await atoll('top'), /edge-1 +edge +True/);
  assert.match(await atoll('top instances'), new RegExp(one.metadata.name));
});

it('describe says why, and events tell what happened', async () => {
  const [one] = await items('instances -l atoll.dev/deployment=forms');
  const text = await atoll(`describe instance ${one.metadata.name}`);
  assert.match(text, /^Why: +placed on (onprem|edge)-1 \(site/m);
  assert.match(text, /Scheduled +placed on/);
  assert.match(await atoll('describe deployment forms'), /ScalingUp +2 more of template/);
});

it('a wait shows its progress on a terminal, and prints results only elsewhere', async () => {
  const command = `${ATOLL} wait deployment/forms --for=jsonpath={.spec.replicas}=3 --timeout=1s`;
  const terminal = await run('script', ['-qec', command, '/dev/null'], { env });
  assert.match(terminal.out, /\r.*forms/);
  await fails('wait deployment/forms --for=jsonpath={.spec.replicas}=3 --timeout=1s', 7, /time is up while waiting for .*forms/);
});

it('scale to zero and back', async () => {
  await atoll('scale deployment/forms --replicas=0 --wait --timeout=30s');
  await eventually('all are gone', async () => (await items('instances -l atoll.dev/deployment=forms')).length === 0);
  assert.match(await atoll('get deployment forms --no-headers'), /^forms +0 +0/);
  await atoll('scale deployment/forms --replicas=1 --wait --timeout=30s');
  assert.equal((await items('instances -l atoll.dev/deployment=forms')).filter((i) => i.status.ready).length, 1);
  await fails('scale deployment/forms --replicas=-1', 2, /--replicas must be a whole number/);
  await fails('scale deployment/nope --replicas=1', 4, /"nope" not found/);
});

it('a Secret reaches the environment of an instance and no argument list; logs follow', async () => {
  const script = 'echo "password is $PASSWORD"; while :; do echo tick; sleep 0.2; done';
  await apply(
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'db' }, stringData: { password: 'open-sesame-42' } },
    deployment('secretive', { command: ['sh', '-c', script], env: [{ name: 'PASSWORD', secretKeyRef: { name: 'db', key: 'password' } }], port: -1 }),
  );
  await atoll('wait deployment/secretive --for=condition=Ready --timeout=30s');
  const follow = fleet.start('atoll logs -f', ['logs', 'deployment/secretive', '-f'], { env });
  await follow.line(/password is open-sesame-42/);
  await follow.line(/tick[\s\S]*tick[\s\S]*tick/);
  await follow.stop({ signal: 'SIGINT' });
  assert.equal((await atoll('logs deployment/secretive --tail 1')).trim().split('\n').length, 1);
  assert.match(await atoll('logs deployment/secretive --tail=-1 --since-time 2020-01-01T00:00:00Z'), /^password is/);
  assert.doesNotMatch(await atoll('logs deployment/secretive --since-time=2199-01-01T00:00:00Z'), /password is/);
  await fails('logs deployment/secretive --since-time=soon', 2, /sinceTime: "soon" is no time/);
  await fails('logs deployment/secretive --since 1s --since-time=2020-01-01T00:00:00Z', 2, /either --since or --since-time/);
  await fails('apply -f https://example.org/x.yaml', 2, /files are not fetched.*curl/);
  assert.deepEqual(processesWith('open-sesame-42').filter((p) => p.args.includes('open-sesame-42')), []);
  const described = await atoll('describe secret db');
  assert.match(described, /password: 14 bytes/);
  assert.doesNotMatch(described, /sesame|b3Blbi1/);
  await fails('logs nope', 4, /instances\.atoll\.dev "nope" not found/);
  await atoll('delete deployment secretive');
});

it('a liveness probe that fails restarts the instance', async () => {
  await apply(deployment('sick', {
    command: ['sh', '-c', 'mkdir w; echo well > w/index.html; exec busybox httpd -f -p "127.0.0.1:$PORT" -h "$PWD/w"'],
    readinessProbe: { httpPath: '/index.html', period: '100ms' },
    livenessProbe: { httpPath: '/index.html', period: '100ms', failureThreshold: 2 },
  }));
  await atoll('wait deployment/sick --for=condition=Ready --timeout=30s');
  const [before] = await items('instances -l atoll.dev/deployment=sick');
  await run('rm', [`/proc/${before.status.pid}/cwd/index.html`]); // httpd goes into its folder
  const after = await eventually('it is ready again', async () => {
    const [i] = await items('instances -l atoll.dev/deployment=sick');
    return i.status.restarts === 1 && i.status.ready && i;
  });
  assert.equal(after.metadata.name, before.metadata.name);
  assert.notEqual(after.status.pid, before.status.pid);
  assert.match(await atoll(`describe instance ${after.metadata.name}`), /Warning +Unhealthy +the liveness probe failed 2 times/);
  await atoll('delete deployment sick');
});

it('fractions of GPUs, labels, a cordon and taints decide where instances go, and say so', async () => {
  const on = async (name) => (await items(`instances -l atoll.dev/deployment=${name}`)).filter((i) => i.metadata.deletionTimestamp === undefined);
  const why = (name, words) => eventually(`${name} is refused for ${words}`, async () => (await on(name)).some((i) => words.test(i.status?.message ?? '')));
  await apply(sleeper('halves', { resources: { cpu: '50m', memory: '32Mi', gpu: '500m', gpuMemory: '10Gi' } }, 5));
  await why('halves', /NotEnoughGPU/);
  const halves = await eventually('four fit on two GPUs', async () => {
    const list = await on('halves');
    return list.filter((i) => i.status?.ready).length === 4 && list;
  });
  assert.ok(halves.filter((i) => i.spec.nodeName).every((i) => i.spec.nodeName === 'edge-1'));
  assert.match(await atoll('top nodes'), /edge-1 .* 2\/2 /);
  await atoll('delete deployment halves');

  await apply(sleeper('picky', { placement: { nodeSelector: { rack: '7' } } }));
  await why('picky', /label rack=7 missing/);
  await atoll('label node onprem-1 rack=7');
  await atoll('wait deployment/picky --for=condition=Ready --timeout=20s');
  await atoll('label node onprem-1 rack-');
  await fails('label node onprem-1 rack=a/b', 2, /metadata\.labels/);
  await atoll('delete deployment picky');

  const node = (spec) => apply({ apiVersion: 'atoll.dev/v1', kind: 'Node', metadata: { name: 'edge-1' }, spec: { site: 'edge', ...spec } });
  await node({ unschedulable: true });
  await apply(sleeper('local', { placement: { sites: ['edge'] } }));
  await why('local', /Cordoned/);
  assert.match(await atoll('get nodes'), /^edge-1 +edge +True +true /m);
  await node({ unschedulable: false, taints: [{ key: 'maintenance', effect: 'NoSchedule' }] });
  await why('local', /taint maintenance.* not tolerated/);
  await node({ unschedulable: false, taints: [] });
  await atoll('wait deployment/local --for=condition=Ready --timeout=20s');
  await atoll('delete deployment local');
});

it('infer takes an image, a tensor, JSON and a whole request, and names what is wrong', async () => {
  await atoll(`apply -f ${QUICKSTART}/1-sites.yaml`);
  const digits = (await readFile(path.join(QUICKSTART, '2-digits.yaml'), 'utf8')).split('\n---')[0].replace(/replicas: 3/, 'replicas: 1');
  await atoll('apply -f -', { input: digits });
  await atoll('wait deployment/digits --for=condition=Ready --timeout=60s');
  const seven = `infer digits --image ${QUICKSTART}/data/digit-7.pgm`;
  await eventually('the gateway knows the model', async () => (await run(ATOLL, seven.split(' '), { env })).code === 0);
  assert.match(await atoll(seven), /largest: \[7\]/);
  const [{ data: [pixels] }] = JSON.parse(await readFile(path.join(QUICKSTART, 'data/digits-test.json'), 'utf8')).inputs;
  const tensor = { name: 'image', datatype: 'FP32', shape: [1, 64], data: pixels };
  const label = (text) => JSON.parse(text).outputs.find((o) => o.name === 'label').data;
  const want = label(await atoll(`infer digits --tensor ${await fleet.file('t.json', JSON.stringify(tensor))} -o json`));
  assert.deepEqual(label(await atoll(`infer digits --request ${await fleet.file('r.json', JSON.stringify({ inputs: [tensor] }))} -o json`)), want);
  assert.deepEqual(label(await atoll(`infer digits --input image=${JSON.stringify([pixels])} -o json`)), want);
  await fails('infer digits --input image=[[1,2]]', 2, /input "image": shape \[1,2\] does not fit/);
  await fails('infer digits --input picture=[[1,2]]', 2, /"picture" is not one of the model's: image/);
  await fails('infer digits --image /nonexistent.pgm', 4, /nonexistent\.pgm/);
  await fails('infer nomodel --input image=[[1]]', 4, /nomodel/);
  assert.match(await atoll(`load digits --data ${QUICKSTART}/data/digits-test.json --requests 50`), /failed +0/);
  await fails(`load nomodel --data ${QUICKSTART}/data/digits-test.json --requests 5`, 6, /every request failed/);
  await fails('infer digits', 2, /--image, --input, --tensor or --request/);
});

it('errors say what to do, with their exit status', async () => {
  await fails('gett nodes', 2, /did you mean get/);
  await fails('get nods', 2, /did you mean nodes/);
  await fails('get nodes --bogus', 2, /unknown option --bogus/);
  await fails('get node nope', 4, /nodes\.atoll\.dev "nope" not found/);
  await fails('apply -f /nonexistent.yaml', 4, /nothing was applied/);
  await fails('get nodes --kubeconfig /nonexistent', 4, /hint: atoll dev writes one/);
});

it('ends cleanly', async () => {
  assert.equal((await dev.stop({ signal: 'SIGINT' })).code, 0);
});
