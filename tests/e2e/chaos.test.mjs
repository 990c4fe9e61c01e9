// Servers and agents are killed at random moments; afterwards everything is as it was asked for, and nothing ran twice.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Cluster, condition, processesWith, web, webRoot } from './lib/cluster.mjs';
import { eventually, Fleet, run } from './lib/atoll.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';

const SECONDS = Number(process.env.ATOLL_CHAOS_SECONDS ?? 12);
const COMPLETIONS = 8;
const fleet = new Fleet();

// mulberry32: the same seed gives the same kills (not the same timing).
function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// servers: of one control plane; c: agents joined at the first of them.
async function chaos(t, c, servers, seconds) {
  const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1e9);
  t.diagnostic(`seed ${seed} (ATOLL_SEED=${seed} to replay)`);
  const next = random(seed);
  const out = await fleet.dir('atoll-chaos');
  await run('chmod', ['0777', out]);
  await c.server.apply([
    web('one', c, { replicas: 3, root: await webRoot(fleet, 'one') }),
    web('two', c, { replicas: 2, root: await webRoot(fleet, 'two') }),
    {
      apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: 'count', namespace: 'default' },
      spec: {
        completions: COMPLETIONS, parallelism: 2, backoffLimit: 100,
        template: { spec: { command: ['sh', '-c', `echo $ATOLL_INSTANCE >> ${out}/$ATOLL_INSTANCE; sleep 1`], port: -1, env: [{ name: 'MARK', value: c.mark }], resources: { cpu: '50m' } } },
      },
    },
  ]);
  let kills = 0;
  for (const end = Date.now() + seconds * 1000; Date.now() < end; kills++) {
    await new Promise((resolve) => setTimeout(resolve, 100 + next() * 1500));
    const names = Object.keys(c.agents);
    const pick = Math.floor(next() * (names.length + servers.length));
    if (pick >= names.length) {
      const server = servers[pick - names.length];
      await server.proc.kill('SIGKILL');
      await new Promise((resolve) => setTimeout(resolve, next() * 500));
      await server.start();
    } else {
      await c.killAgent(names[pick]);
      await new Promise((resolve) => setTimeout(resolve, next() < 0.3 ? 4000 : next() * 1000)); // some long enough to be lost
      await c.startAgent(names[pick]);
    }
  }
  t.diagnostic(`${kills} kills`);
  await eventually('all nodes are ready', async () => (await c.list('nodes')).every((n) => condition(n, 'Ready') === 'True'), { timeoutMs: 30_000 });
  await c.ready('one', { timeoutMs: 60_000 });
  await c.ready('two', { timeoutMs: 60_000 });
  await eventually('the job is complete', async () => condition(await c.get('jobs', 'count'), 'Complete') === 'True', { timeoutMs: 120_000 });
  await eventually('what runs is what there are instances for', async () => {
    const pids = (await c.list('instances')).filter((i) => i.status.phase === 'Running').map((i) => i.status.pid).sort();
    const running = processesWith(c.mark).filter((p) => p.args.includes('httpd')).map((p) => p.pid).sort();
    return pids.length === 5 && JSON.stringify(pids) === JSON.stringify(running);
  });
  const job = await c.get('jobs', 'count');
  assert.equal(job.status.succeeded, COMPLETIONS);
  // A process that ends while its agent is dead takes its exit status along: the job tries again.
  const failed = (await c.instances('count')).filter((i) => i.status.phase === 'Failed');
  for (const i of failed) assert.match(i.status.message, /exit status unknown/);
  const succeeded = (await c.instances('count')).filter((i) => i.status.phase === 'Succeeded');
  assert.equal(succeeded.length, COMPLETIONS);
  for (const i of [...succeeded, ...failed]) {
    const text = await readFile(path.join(out, i.metadata.name), 'utf8');
    assert.equal(text, `${i.metadata.name}\n`, `${i.metadata.name} ran more than once`);
  }
}

fleet.it('kill -9 of anything, again and again', async (t) => {
  const c = await Cluster.start(fleet, { 'onprem-1': 'onprem', 'edge-1': 'edge', 'cloud-1': 'cloud' });
  await chaos(t, c, [c.server], SECONDS);
}, { timeout: 240_000 });

fleet.it('kill -9 of anything, with three servers on etcd', async (t) => {
  const etcd = await Etcd.start(fleet);
  const args = ['--node-timeout', '3s', '--store', `etcd:${etcd.url}`, '--pki', path.join(await fleet.dir('atoll-pki'), 'pki')];
  const others = await Promise.all([1, 2].map(() => fleet.server({ args })));
  const c = await Cluster.start(fleet, { 'onprem-1': 'onprem', 'edge-1': 'edge' }, { args });
  await chaos(t, c, [c.server, ...others], SECONDS);
}, { timeout: 240_000, skip: ETCD_MISSING });
