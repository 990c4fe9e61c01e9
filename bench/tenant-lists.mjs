#!/usr/bin/env node
// Time of one tenant's list with none and with many objects of another: tenant-lists [OBJECTS (20000)] [LISTS (300)]
// Prints the median and the 99th percentile in microseconds, and those of a second run with none, for the noise.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Agent } from 'node:https';
import { call, credentials } from '../tests/e2e/lib/rest.mjs';

const objects = Number(process.argv[2] ?? 20_000);
const lists = Number(process.argv[3] ?? 300);
const binary = process.env.ATOLL_BIN ?? path.join(import.meta.dirname, '../build/r/atoll');
const state = mkdtempSync(path.join(process.env.TMPDIR ?? tmpdir(), 'atoll-bench-'));
const server = spawn(binary, ['server', '--state', state, '--listen', '127.0.0.1:0', '--store', 'memory', '--audit-level', 'none'], { stdio: ['ignore', 'pipe', 'ignore'] });
try {
  const url = await new Promise((resolve) => {
    let out = '';
    server.stdout.on('data', (d) => {
      out += d;
      const m = /^ready server (\S+)$/m.exec(out);
      if (m) resolve(m[1]);
    });
  });
  const admin = { ...(await credentials(path.join(state, 'admin.kubeconfig'))), url, agent: new Agent({ keepAlive: true, maxSockets: 32 }) };
  const make = (ns, name) => call(admin, 'POST', `/api/v1/namespaces/${ns}/configmaps`, { metadata: { name } });
  for (const ns of ['mine', 'other']) await call(admin, 'POST', '/api/v1/namespaces', { metadata: { name: ns } });
  for (let i = 0; i < 20; i++) await make('mine', `m${i}`);
  const measure = async (what) => {
    const times = [];
    for (let i = 0; i < lists + 50; i++) {
      const from = process.hrtime.bigint();
      await call(admin, 'GET', '/api/v1/namespaces/mine/configmaps');
      if (i >= 50) times.push(Number(process.hrtime.bigint() - from) / 1000);
    }
    times.sort((a, b) => a - b);
    console.log(`${what}: p50 ${times[Math.floor(lists / 2)].toFixed(0)} us, p99 ${times[Math.floor(lists * 0.99)].toFixed(0)} us`);
  };
  await measure('none of the other tenant');
  await measure('none, once more        ');
  for (let i = 0; i < objects; i += 200) await Promise.all(Array.from({ length: Math.min(200, objects - i) }, (_, k) => make('other', `o${i + k}`)));
  await measure(`${objects} of the other tenant`);
  admin.agent.destroy();
} finally {
  server.kill('SIGTERM');
  await new Promise((resolve) => server.on('exit', resolve));
  rmSync(state, { recursive: true, force: true });
}
