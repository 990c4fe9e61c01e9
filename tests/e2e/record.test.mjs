// A live server is recorded; the replay of the recording by the server's own scheduler makes the placements that were made live.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { before } from 'node:test';
import { ATOLL, eventually, Fleet, run } from './lib/atoll.mjs';
import { Cluster } from './lib/cluster.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
let c;
let dir;
let recording;
const live = new Map();

const gpus = (n, model) => [...Array(n).keys()].map((i) => ({ id: `g${i}`, model, memory: '16Gi' }));
const devices = async (name, cpu, list) => fleet.file(`${name}.json`, JSON.stringify({ capacity: { cpu, memory: '16Gi' }, gpus: list }));

before(async () => {
  dir = await fleet.dir('atoll-record');
  recording = path.join(dir, 'fleet.jsonl');
  c = await Cluster.start(fleet, { 'edge-1': 'edge', 'cloud-1': 'cloud', 'cloud-2': 'cloud' }, {
    devices: {
      'edge-1': await devices('edge-1', '6', gpus(2, 'T4')),
      'cloud-1': await devices('cloud-1', '8', gpus(4, 'A10')),
      'cloud-2': await devices('cloud-2', '8', []),
    },
  });
});

const sleeper = (name, replicas, resources, placement = {}) => ({
  apiVersion: 'atoll.dev/v1',
  kind: 'Deployment',
  metadata: { name, namespace: 'default' },
  spec: { replicas, template: { spec: { command: ['sleep', '1000'], env: [{ name: 'MARK', value: c.mark }], resources, placement, terminationGracePeriod: '1s' } } },
});

async function placed(name, count) {
  await eventually(`${name} is placed ${count} times`, async () => {
    const list = (await c.instances(name)).filter((i) => i.spec.nodeName);
    for (const i of list) live.set(i.metadata.name, i.spec.nodeName);
    return list.length === count;
  });
}

async function placements(...args) {
  const file = path.join(dir, 'placements.csv');
  const r = await run(ATOLL, ['sim', '--trace', recording, '--placements', file, ...args]);
  assert.equal(r.code, 0, r.err);
  const rows = (await readFile(file, 'utf8')).trim().split('\n').slice(1).map((row) => row.split(','));
  return { out: r.out, rows, where: new Map(rows.map((row) => [row[3], row[4]])) };
}

it('the replay of a recording makes the placements that were made live', async () => {
  const recorder = fleet.start('atoll record', ['record', '--kubeconfig', c.server.kubeconfig, recording]);
  await eventually('the world is written down', async () => (await readFile(recording, 'utf8').catch(() => '')).includes('"cloud-2"'));
  await c.server.apply(sleeper('web', 3, { cpu: '1' }));
  await placed('web', 3);
  await c.server.apply(sleeper('model', 2, { cpu: '1', gpu: '0.5' }, { spreadBy: 'node' }));
  await placed('model', 2);
  await c.server.apply(sleeper('big', 1, { cpu: '1', gpu: '2', gpuModels: ['A10'] }));
  await placed('big', 1);
  await c.server.k('delete deployment web');
  await eventually('web has gone', async () => (await c.instances('web')).length === 0);
  await c.server.apply(sleeper('late', 4, { cpu: '2' }));
  await placed('late', 4);
  await eventually('the last placement is written down', async () => ((await readFile(recording, 'utf8')).match(/"placed"/g) ?? []).length === 10);
  const status = await recorder.stop({ signal: 'SIGINT' });
  assert.equal(status.code, 0, recorder.log());
  assert.match(recorder.err, /recorded 10 requests, 10 placed, 3 ended/);

  const { out, where } = await placements();
  assert.deepEqual(where, live);
  assert.match(out, /never placed +0\n/);
});

it('a recording holds no environment', async () => {
  const text = await readFile(recording, 'utf8');
  assert.ok(!text.includes(c.mark), 'the mark in the environment');
  for (const line of text.trim().split('\n')) JSON.parse(line);
});

it('what-if: the recorded cloud is lost, and what fits goes to the edge', async () => {
  const { rows, out } = await placements('--lose-site', 'cloud@1ms');
  assert.ok(rows.length > 0);
  assert.ok(rows.every((row) => Number(row[1]) < 0.002 || row[4] === 'edge-1'), JSON.stringify(rows));
  assert.match(out, /never placed +[1-9]/);
});

it('says why it cannot record', async () => {
  for (const [args, words] of [
    [['record'], /FILE/],
    [['record', '--kubeconfig', c.server.kubeconfig, recording], /is there already/],
    [['record', '--kubeconfig', c.server.kubeconfig, '/nonexistent/x'], /nonexistent/],
    [['record', '--kubeconfig', '/nonexistent/config', '-'], /nonexistent/],
  ]) {
    const r = await run(ATOLL, args);
    assert.notEqual(r.code, 0);
    assert.match(r.err, words);
  }
});
