// `atoll sim place` on a small trace of our own: one line, the same each time, and errors that say where.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, Fleet, ROOT, run } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const dir = await fleet.dir('atoll-sim');
const nodes = path.join(ROOT, 'src/sim/testdata/nodes.csv');
const pods = path.join(ROOT, 'src/sim/testdata/pods.csv');
const place = (...more) => run(ATOLL, ['sim', 'place', '--nodes', nodes, '--pods', pods, ...more]);
const LINE = /^alloc100=\d+\.\d\d alloc130=\d+\.\d\d frag100=\d+\.\d\d unscheduled=\d+ pods=\d+ seconds=\d+\.\d{3}\n$/;

for (const policy of ['fgd', 'bestfit', 'dotprod', 'packing', 'clustering', 'atoll']) {
  it(`prints one line for ${policy}, the same each time but for the seconds`, async () => {
    const runs = [await place('--policy', policy, '--seed', '7'), await place('--policy', policy, '--seed', '7')];
    for (const r of runs) {
      assert.equal(r.code, 0, r.err);
      assert.match(r.out, LINE);
    }
    const [a, b] = runs.map((r) => r.out.replace(/seconds=.*/, ''));
    assert.equal(a, b);
  });
}

it('takes an order, and writes placements, curve and plot', async () => {
  const file = (name) => path.join(dir, name);
  const count = (await readFile(nodes, 'utf8')).trim().split('\n').length - 1;
  await writeFile(file('order.txt'), `nodes ${[...Array(count).keys()].reverse().join(' ')}\npods 0 1 2 1 0\n`);
  const r = await place('--order', file('order.txt'), '--placements', file('p.csv'), '--curve', file('c.csv'), '--plot', file('p.svg'));
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, / pods=5 /);
  const rows = (await readFile(file('p.csv'), 'utf8')).trim().split('\n');
  assert.equal(rows[0], 'event,pod_row,node_row');
  assert.deepEqual(rows.slice(1).map((row) => row.split(',')[1]), ['0', '1', '2', '1', '0']);
  assert.equal((await readFile(file('c.csv'), 'utf8')).trim().split('\n').length, 6);
  assert.match(await readFile(file('p.svg'), 'utf8'), /^<svg [\s\S]*<\/svg>\n$/);
});

it('replays departures with --churn', async () => {
  const r = await place('--churn');
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, / alloc_mean=\d+\.\d\d accepted=\d+\.\d\d\n$/);
});

it('says what is wrong, with exit status 2', async () => {
  const bad = path.join(dir, 'bad.csv');
  await writeFile(bad, 'sn,cpu_milli,memory_mib,gpu,model\na,1000,1,99,T4\n');
  for (const [args, words] of [
    [['sim'], /say what/],
    [['sim', 'plaice'], /say what/],
    [['sim', 'place', '--pods', pods], /--nodes and --pods are needed/],
    [['sim', 'place', '--nodes', bad, '--pods', pods], /bad\.csv:2: gpu has to be a whole number from 0 to 16, not '99'/],
    [['sim', 'place', '--nodes', nodes, '--pods', pods, '--policy', 'best'], /none of fgd/],
    [['sim', 'place', '--nodes', nodes, '--pods', pods, '--seed', '-1'], /--seed/],
    [['sim', 'place', '--nodes', nodes, '--pods', pods, '--demand', '0'], /--demand/],
  ]) {
    const r = await run(ATOLL, args);
    assert.equal(r.code, 2, r.err);
    assert.match(r.err, words);
    assert.equal(r.out, '');
  }
});

// Bad trace files: what is wrong, where, nothing on standard output, status 2.
const NODE_HEAD = 'sn,cpu_milli,memory_mib,gpu,model';
const POD_HEAD = 'name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec';
const bads = [
  ['nodes', '', /n\.csv:1: the file is empty/],
  ['nodes', `${NODE_HEAD}\n`, /n\.csv:1: no node/],
  ['nodes', 'sn,cpu_milli,gpu,model\na,1,1,T4\n', /n\.csv:1: no column 'memory_mib'/],
  ['nodes', `${NODE_HEAD}\na,-1,1,1,T4\n`, /n\.csv:2: cpu_milli has to be a whole number/],
  ['nodes', `${NODE_HEAD}\na,99999999999999999999,1,1,T4\n`, /n\.csv:2: cpu_milli has to be/],
  ['nodes', `${NODE_HEAD}\na,1000,1,1,T4,more\n`, /n\.csv:2: 6 fields, the header has 5/],
  ['nodes', `${NODE_HEAD}\na,1000,1,0,T4\n`, /no node of the list has a GPU/],
  ['pods', `${POD_HEAD}\n`, /p\.csv:1: no pod/],
  ['pods', `${POD_HEAD}\np,1000,1,1,NaN,\n`, /p\.csv:2: gpu_milli has to be/],
  ['pods', `${POD_HEAD}\np,1000,1,1,1001,\n`, /p\.csv:2: gpu_milli has to be/],
  ['pods', `${POD_HEAD}\np,1000,1,2000000000000,1000,\n`, /p\.csv:2: num_gpu has to be/],
  ['pods', `${POD_HEAD}\np,1000\n`, /p\.csv:2: 2 fields/],
  ['order', '', /o\.txt:1: the line has to begin with 'nodes '/],
  ['order', 'nodes 0\n', /o\.txt:1: 1 nodes, the list has 40/],
  ['order', 'nodes 0 1\npods 99999999\n', /o\.txt:1/],
];
it('names the file and the line of what is wrong in a trace', async () => {
  const file = { nodes: path.join(dir, 'n.csv'), pods: path.join(dir, 'p.csv'), order: path.join(dir, 'o.txt') };
  for (const [which, text, words] of bads) {
    await writeFile(file[which], text);
    const from = { nodes, pods, [which]: file[which] };
    const r = await run(ATOLL, ['sim', 'place', ...Object.entries(from).flatMap(([k, v]) => [`--${k}`, v])]);
    assert.equal(r.code, 2, `${text}: ${r.err}`);
    assert.match(r.err, words);
    assert.equal(r.out, '');
  }
});

const traces = path.join(ROOT, 'examples/traces');
const day = path.join(traces, 'day.jsonl');
const sim = (...args) => run(ATOLL, ['sim', ...args]);

it('replays a recording, the same bytes each time', async () => {
  const args = ['--trace', day, '--carbon', path.join(traces, 'carbon.csv'), '--prices', path.join(traces, 'prices.csv'), '--quiet'];
  const files = [0, 1].map((i) => ['csv', 'svg', 'placements'].map((what) => path.join(dir, `${what}-${i}`)));
  const runs = [];
  for (const [csv, svg, placements] of files) runs.push(await sim(...args, '--csv', csv, '--svg', svg, '--placements', placements, '-o', 'json'));
  for (const r of runs) assert.equal(r.code, 0, r.err);
  assert.equal(runs[0].out, runs[1].out);
  assert.equal(runs[0].err, '');
  for (let i = 0; i < 3; i++) assert.equal(await readFile(files[0][i], 'utf8'), await readFile(files[1][i], 'utf8'));
  const [one] = JSON.parse(runs[0].out).scenarios;
  assert.equal(one.policy, 'live');
  assert.equal(one.placed + one.neverPlaced, one.requests);
  assert.ok(one.usd > 0 && one.kgCO2 > 0);
  assert.equal((await readFile(files[0][2], 'utf8')).trim().split('\n').length - 1, one.placed);
});

it('compares scenarios: all combinations, in one picture', async () => {
  const svg = path.join(dir, 'compare.svg');
  const r = await sim('--trace', day, '--compare', 'policy=live,atoll,fgd', '--compare', 'lose-site=none;onprem@12h', '--svg', svg, '-o', 'json');
  assert.equal(r.code, 0, r.err);
  const list = JSON.parse(r.out).scenarios;
  assert.deepEqual(list.map((s) => s.name), ['live', 'atoll', 'fgd'].flatMap((p) => [`policy=${p} lose-site=none`, `policy=${p} lose-site=onprem@12h`]));
  for (const s of list) assert.equal(s.evicted > 0, s.name.includes('onprem'), s.name);
  const picture = await readFile(svg, 'utf8');
  for (const s of list) assert.ok(picture.includes(`>${s.name}<`), s.name);
  assert.match(picture, /prefers-color-scheme:dark/);
});

it('answers what-ifs: twice the demand needs more nodes, and prices decide', async () => {
  const many = JSON.parse((await sim('--trace', day, '--demand', '2.0', '--compare', 'add-nodes=none;8xA100@cloud', '-o', 'json', '--quiet')).out).scenarios;
  assert.equal(many[0].requests, 2 * 198);
  assert.ok(many[1].gpuHoursGiven > many[0].gpuHoursGiven);
  const cheap = JSON.parse((await sim('--trace', day, '--compare', 'weights=carbon=100;price=100;cost=100', '--prices', path.join(traces, 'prices.csv'), '-o', 'json', '--quiet')).out).scenarios;
  assert.ok(cheap[1].usd < cheap[0].usd, `${cheap[1].usd} < ${cheap[0].usd}`);
  assert.equal(cheap[2].usd, cheap[1].usd); // the same by its other name
});

it('replays openb files by each policy, the live scheduler too', async () => {
  for (const policy of ['live', 'atoll', 'bestfit']) {
    const r = await sim('--nodes', nodes, '--pods', pods, '--policy', policy, '--arrivals', 'filling', '-o', 'json', '--quiet');
    assert.equal(r.code, 0, r.err);
    const [one] = JSON.parse(r.out).scenarios;
    assert.ok(one.neverPlaced > 0 && one.end.allocatedGpus > 0.8 * one.end.capacityGpus, r.out.slice(0, 400));
  }
});

it('atoll sim says what is wrong, with exit status 2', async () => {
  const bad = path.join(dir, 'bad.jsonl');
  await writeFile(bad, '{"atollTrace":1}\n{"ms":0,"put":{"kind":"Node"}}\n');
  for (const [args, words] of [
    [['--policy', 'fgd'], /say what to replay/],
    [['--trace', day, '--pods', pods], /--trace or --pods/],
    [['--trace', bad], /bad\.jsonl:2: Node /],
    [['--trace', pods], /pods\.csv:1: /],
    [['--trace', day, '--policy', 'best'], /--policy: 'best' is not one of live/],
    [['--trace', day, '--lose-site', 'moon@5'], /no site 'moon'/],
    [['--trace', day, '--lose-site', 'edge'], /SITE@TIME/],
    [['--trace', day, '--demand', '-1'], /--demand/],
    [['--trace', day, '--compare', 'policy'], /KEY=VALUE/],
    [['--trace', day, '--compare', 'colour=red,blue'], /nothing to set is named 'colour'/],
    [['--trace', day, '--prices', pods], /neither a column site nor price_usd_h/],
    [['--trace', day, '-o', 'xml'], /neither text nor json/],
  ]) {
    const r = await sim(...args);
    assert.equal(r.code, 2, `${args}: ${r.code} ${r.err}`);
    assert.match(r.err, words);
    assert.equal(r.out, '');
  }
  const help = await sim('--help');
  assert.equal(help.code, 0);
  assert.match(help.out, /Examples:\n +atoll sim --trace/);
});
