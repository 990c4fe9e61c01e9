// Kill -9 of server and agents while what is wanted changes: in the end exactly what was asked for runs, once.
import assert from 'node:assert/strict';
import { Cluster, processesWith } from './lib/cluster.mjs';
import { deployment, eventually, Fleet } from './lib/atoll.mjs';

const ROUNDS = Number(process.env.ATOLL_CHAOS_ROUNDS ?? 8);
const SEED = Number(process.env.ATOLL_CHAOS_SEED ?? Date.now() % 100_000);

const fleet = new Fleet();

// Small and repeatable (mulberry32): the seed in a failure's output replays the choices, not the timing.
function dice(seed) {
  let a = seed;
  return (n) => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A change is asked for until it is acknowledged, as any client would.
async function insist(change) {
  return eventually('the change is acknowledged', async () => (await change()) ?? true);
}

fleet.it('whatever is killed while deployments change, what runs in the end is what was asked for', async (t) => {
  t.diagnostic(`seed ${SEED}`);
  const roll = dice(SEED);
  const c = await Cluster.start(fleet, { 'onprem-1': 'onprem', 'edge-1': 'edge' });
  const names = ['a', 'b'];
  const wanted = {};
  const template = (version) => ({
    spec: {
      command: ['sleep', '1000'],
      port: -1,
      env: [{ name: 'MARK', value: c.mark }, { name: 'VERSION', value: `${version}` }],
      resources: { cpu: '10m', memory: '8Mi' },
      terminationGracePeriod: '1s',
    },
  });
  for (const name of names) {
    wanted[name] = { replicas: 2, version: 0 };
    await c.server.apply(deployment(name, { replicas: 2, template: template(0) }, { namespace: 'default' }));
  }
  for (let round = 1; round <= ROUNDS; round++) {
    const name = names[roll(names.length)];
    const w = wanted[name];
    if (roll(3) === 0) w.version = round;
    else w.replicas = roll(6);
    const changing = insist(() => c.patch('deployments', name, { spec: { replicas: w.replicas, template: template(w.version) } }).then(() => true));
    await pause(roll(400));
    const victim = roll(3);
    if (victim === 0) {
      await c.server.proc.kill('SIGKILL');
      await pause(roll(300));
      await c.server.start();
    } else {
      const agent = Object.keys(c.agents)[victim - 1];
      await c.killAgent(agent);
      await pause(roll(300));
      await c.startAgent(agent);
    }
    await changing;
    await pause(roll(300));
  }
  await eventually(
    'everything is as wanted',
    async () => {
      const running = processesWith(c.mark).filter((p) => p.args.startsWith('sleep'));
      const all = await c.list('instances');
      assert.ok(all.every((i) => !i.metadata.deletionTimestamp), 'something is still going away');
      for (const name of names) {
        const own = all.filter((i) => i.metadata.ownerReferences[0].name === name);
        assert.equal(own.length, wanted[name].replicas, `${name}: instances`);
        assert.ok(own.every((i) => i.status.ready && i.status.phase === 'Running'), `${name}: not all ready`);
        assert.ok(own.every((i) => i.spec.env.find((e) => e.name === 'VERSION').value === `${wanted[name].version}`), `${name}: version`);
      }
      // Each instance's process runs, once, and nothing else does.
      assert.deepEqual(running.map((p) => p.pid).sort(), all.map((i) => i.status.pid).sort());
      return true;
    },
    { timeoutMs: 60_000, everyMs: 200 },
  );
});

fleet.it('an agent that was away longer than its node was waited for ends what runs elsewhere by now', async () => {
  const c = await Cluster.start(fleet, { 'onprem-1': 'onprem', 'edge-1': 'edge' }, { args: ['--node-timeout', '1s'] });
  const spec = { command: ['sleep', '1000'], port: -1, env: [{ name: 'MARK', value: c.mark }], terminationGracePeriod: '1s' };
  await c.server.apply(deployment('away', { replicas: 4, template: { spec } }, { namespace: 'default' }));
  await c.ready('away');
  const processes = () => processesWith(c.mark).filter((p) => p.args.startsWith('sleep'));
  assert.equal(processes().length, 4);
  const frozen = c.agents['onprem-1'].proc.child;
  frozen.kill('SIGSTOP');
  try {
    await eventually('all four are on the other node', async () => {
      const on = (await c.instances('away')).map((i) => [i.spec.nodeName, i.status.ready]);
      return on.length === 4 && on.every(([node, ready]) => node === 'edge-1' && ready);
    });
    assert.equal(processes().length, 6, 'nobody can stop those of the agent that is away');
  } finally {
    frozen.kill('SIGCONT');
  }
  await eventually('only those that are known run', async () => {
    const known = (await c.instances('away')).map((i) => i.status.pid).sort();
    return known.length === 4 && JSON.stringify(processes().map((p) => p.pid).sort()) === JSON.stringify(known);
  });
});
