// The optimised server does not grow: objects come and go, watches come and go, memory stays.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Fleet, ROOT } from '../e2e/lib/atoll.mjs';
import { call, credentials } from '../e2e/lib/rest.mjs';

const RELEASE = process.env.ATOLL_RELEASE_BIN ?? path.join(ROOT, 'build/release/atoll');
const HISTORY = 10_000; // revisions that the server keeps: until they are reached, it may grow
const CHURN = 10_000; // and so many more that must not make it grow
const WRITERS = 16;
const WATCHERS = 4;
const ALLOWED_BYTES = 4 << 20;

const fleet = new Fleet();

const rssBytes = async (pid) => Number(/^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

// Objects of two kinds, one of which the controllers look at, made and deleted under a few names.
async function write(who, n, state) {
  const made = (i) =>
    i % 2 === 0
      ? ['/api/v1/namespaces/default/configmaps', { metadata: { name: `c${n}` }, data: { value: 'v'.repeat(200 + (i % 8) * 200) } }]
      : ['/apis/atoll.dev/v1/sites', { metadata: { name: `s${n}` }, spec: { class: 'onprem', jurisdiction: 'EU' } }];
  for (let i = 0; !state.over; i++) {
    const [collection, object] = made(i);
    assert.equal((await call(who, 'POST', collection, object)).status, 201);
    assert.equal((await call(who, 'DELETE', `${collection}/${object.metadata.name}`)).status, 200);
    state.revisions += 2;
  }
}

// A watch that is begun, read for a while, and left in the middle.
async function watch(who, state) {
  while (!state.over) {
    const { url, ca, cert, key } = who;
    const target = new URL('/api/v1/configmaps?watch=true&allowWatchBookmarks=true', url);
    const req = request(target, { ca, cert, key, agent: false }, (res) => res.on('data', () => {}).on('error', () => {}));
    req.on('error', () => {});
    req.end();
    await pause(150);
    req.destroy();
  }
}

fleet.it(
  'memory stays flat while objects and watches come and go',
  async (t) => {
    if (!existsSync(RELEASE)) {
      t.skip(`no optimised build at ${RELEASE} (make, or set ATOLL_RELEASE_BIN)`);
      return;
    }
    const dir = await fleet.dir();
    const proc = fleet.start('atoll server', ['server', '--state', dir, '--listen', '127.0.0.1:0'], { command: RELEASE });
    await proc.line(/^ready server /m);
    const agent = new Agent({ keepAlive: true, maxSockets: WRITERS });
    const who = { ...(await credentials(path.join(dir, 'admin.kubeconfig'))), agent };
    const state = { revisions: 0, over: false };
    const reached = async (n) => {
      while (state.revisions < n && !state.failed) await pause(50);
    };
    const loops = [...Array(WRITERS).keys()].map((n) => write(who, n, state)).concat([...Array(WATCHERS)].map(() => watch(who, state)));
    const all = Promise.all(loops).catch((error) => {
      state.failed = error;
      state.over = true;
    });
    await reached(HISTORY * 1.2);
    const before = await rssBytes(proc.pid);
    await reached(HISTORY * 1.2 + CHURN);
    const after = await rssBytes(proc.pid);
    state.over = true;
    await all;
    agent.destroy();
    assert.ifError(state.failed);
    t.diagnostic(`${state.revisions} writes; resident ${(before / 1e6).toFixed(1)} MB, then ${(after / 1e6).toFixed(1)} MB`);
    assert.ok(after < before + ALLOWED_BYTES, `grew from ${before} to ${after} bytes within ${CHURN} writes`);
  },
  { timeout: 180_000 },
);
