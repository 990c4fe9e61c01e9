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
