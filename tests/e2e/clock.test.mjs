// The wall clock of a machine is stepped by hours, forwards and back, while everything runs: nothing may notice.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, eventually, Fleet, run } from './lib/atoll.mjs';
import { Cluster, condition, web, webRoot } from './lib/cluster.mjs';
import { Etcd, ETCD_MISSING } from './lib/etcd.mjs';
import { call, certificateRequest, credentials } from './lib/rest.mjs';

// CLOCK_REALTIME is the same in every namespace, so the processes under test get theirs from a library loaded before
// all others: the real one, moved by so many seconds as a file says.
const SHIM = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long moved(void)
{
    const char *path = getenv("TEST_CLOCK_FILE");
    char text[32] = {0};
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    long n = read(fd, text, sizeof text - 1) > 0 ? atol(text) : 0;
    close(fd);
    return n;
}
int clock_gettime(clockid_t clock, struct timespec *ts)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, ts);
    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) ts->tv_sec += moved();
    return rc;
}
int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    (void)tz;
    struct timespec ts;
    int rc = clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return rc;
}
time_t time(time_t *out)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out != NULL) *out = ts.tv_sec;
    return ts.tv_sec;
}
`;
const HOUR = 3600;
const MAPS = '/api/v1/namespaces/default/configmaps';
const EVENTS = '/api/v1/namespaces/default/events';

const fleet = new Fleet();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// {env, step(seconds)}: processes with that environment live by a clock that is moved by all steps together.
async function stepping() {
  const dir = await fleet.dir('atoll-clock');
  const source = path.join(dir, 'shim.c');
  const library = path.join(dir, 'shim.so');
  const file = path.join(dir, 'moved');
  await writeFile(source, SHIM);
  const made = await run('cc', ['-shared', '-fPIC', '-O1', '-o', library, source]);
  if (made.code !== 0) throw new Error(made.err);
  let moved = 0;
  const step = async (seconds) => {
    moved += seconds;
    await writeFile(file, `${moved}`.padEnd(16)); // one write of one size: never half read
  };
  await step(0);
  const asan = process.env.ASAN_OPTIONS ? `${process.env.ASAN_OPTIONS}:` : '';
  return { step, env: { LD_PRELOAD: library, TEST_CLOCK_FILE: file, ASAN_OPTIONS: `${asan}verify_asan_link_order=0` }, moved: () => moved };
}

const tokenFor = async (admin, ttl) => (await call(admin, 'POST', '/join/v1/tokens', { role: 'agent', site: 'here', ttl })).body;

async function joinWith({ token }, admin, name) {
  const { csr } = await certificateRequest(`system:node:${name}`);
  return call({ url: admin.url, ca: admin.ca }, 'POST', '/join/v1', { token, csr, name });
}

async function everythingGoesOn(t, clock, servers, admin, c) {
  await c.server.apply([{ apiVersion: 'atoll.dev/v1', kind: 'Site', metadata: { name: 'here' }, spec: { class: 'edge', jurisdiction: 'EU' } }]);
  await Promise.all(['n1', 'n2'].map((n) => c.join(n, 'here')));
  await c.server.apply([web('web', c, { replicas: 2, root: await webRoot(fleet, 'hello') })]);
  await c.ready('web', { timeoutMs: 40_000 });
  await eventually('both nodes are ready', async () => (await c.list('nodes')).every((n) => condition(n, 'Ready') === 'True'));
  const copies = async () => (await c.instances('web')).map((i) => [i.metadata.uid, i.status.restarts ?? 0]).sort();
  const before = await copies();
  const event = { apiVersion: 'v1', kind: 'Event', metadata: { name: 'mine' }, involvedObject: { kind: 'Site', name: 'here' }, reason: 'Seen', message: 'm', type: 'Normal' };
  assert.equal((await call(admin, 'POST', EVENTS, event)).status, 201);
  const leading = async () => (await Promise.all(servers.map(async (s) => /^atoll_server_leading 1$/m.test((await call(s.admin, 'GET', '/metrics')).body)))).indexOf(true);
  const leader = await eventually('one leads', async () => (await leading()) + 1);
  const soon = await tokenFor(admin, '3s');
  const issued = Date.now();
  const list = (await call(admin, 'GET', MAPS)).body;
  let rv = list.metadata.resourceVersion;

  let last = 0;
  for (const seconds of [5 * HOUR, -11 * HOUR, 3 * HOUR]) {
    const watching = call(admin, 'GET', `${MAPS}?watch=true&resourceVersion=${rv}&timeoutSeconds=2`);
    await pause(200);
    await clock.step(seconds);
    const made = await call(admin, 'POST', MAPS, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: `m${seconds}` } }); // over a new connection
    assert.equal(made.status, 201, JSON.stringify(made.body));
    assert.ok(Math.abs(Date.parse(made.body.metadata.creationTimestamp) / 1000 - Date.now() / 1000 - clock.moved()) < 60, 'the clock was stepped');
    for (const end = Date.now() + 1500; Date.now() < end; await pause(150)) {
      for (const n of await c.list('nodes')) assert.equal(condition(n, 'Ready'), 'True', `${n.metadata.name} after ${seconds} s`);
      assert.equal((await leading()) + 1, leader, `another server leads after ${seconds} s`);
    }
    const told = await watching;
    const events = told.body.object ? [told.body] : String(told.body).trim().split('\n').map((l) => JSON.parse(l));
    assert.ok(events.some((e) => e.type === 'ADDED' && e.object.metadata.name === `m${seconds}`), 'the watch went on');
    assert.ok(Number(made.body.metadata.resourceVersion) > last, 'the revision went back');
    rv = made.body.metadata.resourceVersion;
    last = Number(rv);
    assert.deepEqual(await copies(), before, `copies were replaced or restarted after ${seconds} s`);
    assert.equal((await call(admin, 'GET', `${EVENTS}/mine`)).status, 200, `the Event is gone after ${seconds} s`);
  }
  // A token ends in its time though the clock says that there are hours left, and a fresh one works.
  assert.ok(Date.now() - issued > 3100);
  const late = await joinWith(soon, admin, 'late');
  assert.equal(late.status, 401);
  assert.match(late.body.message, /has expired/);
  const fresh = await joinWith(await tokenFor(admin, '1m'), admin, 'fresh');
  assert.equal(fresh.status, 200, JSON.stringify(fresh.body));
  // And what is new is done as ever, by agents that have lived through it all.
  await c.patch('deployments', 'web', { spec: { replicas: 3 } });
  await c.ready('web', { timeoutMs: 20_000 });
  t.diagnostic(`stepped by 5, -11 and 3 hours; ${before.length} copies ran on`);
}

function cluster(server, admin, env) {
  const c = new Cluster();
  Object.assign(c, { fleet, agentArgs: [], agentEnv: env, agents: {}, mark: `atoll-e2e-${process.pid}-${Date.now()}`, server, admin });
  return c;
}

fleet.it('a clock stepped by hours: nodes, copies, watches, Events and tokens go on, on SQLite', async (t) => {
  const clock = await stepping();
  const server = await fleet.server({ args: ['--node-timeout', '3s'], env: clock.env });
  server.admin = await credentials(server.kubeconfig);
  await everythingGoesOn(t, clock, [server], server.admin, cluster(server, server.admin, clock.env));
  await server.stop();
  const audit = await run(ATOLL, ['audit', 'verify', server.state]); // its order is that of its numbers, not of the clock
  assert.equal(audit.code, 0, audit.err);
});

fleet.it('a clock stepped by hours: leadership too, with two servers on etcd', async (t) => {
  const clock = await stepping();
  const etcd = await Etcd.start(fleet);
  const args = ['--node-timeout', '3s', '--store', `etcd:${etcd.url}`, '--pki', path.join(await fleet.dir('atoll-pki'), 'pki')];
  const servers = await Promise.all([1, 2].map(() => fleet.server({ args, env: clock.env })));
  for (const s of servers) s.admin = await credentials(s.kubeconfig);
  await everythingGoesOn(t, clock, servers, servers[0].admin, cluster(servers[0], servers[0].admin, clock.env));
}, { skip: ETCD_MISSING });
