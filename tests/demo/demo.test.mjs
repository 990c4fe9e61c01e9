// The demonstration is a promise of the README: it runs from start to end, fails no request, and its last line is for scripts.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

test('the demo serves a real model on three sites and loses one without a failed request', { timeout: 240_000 }, () => {
  const release = path.join(root, 'build/release/atoll');
  const env = { ...process.env, NO_COLOR: '1' };
  if (existsSync(release)) {
    env.ATOLL_BIN = release;
  }
  const done = spawnSync(path.join(root, 'tools/demo'), [], { env, encoding: 'utf8', timeout: 220_000 });
  assert.equal(done.status, 0, `${done.stdout}\n${done.stderr}`);
  const last = done.stdout.trimEnd().split('\n').at(-1);
  const found = /^demo: ok accuracy=(0\.\d{3}) requests=(\d+) failed=0 p50_us=(\d+) p99_us=(\d+) failover_ms=(\d+)$/.exec(last);
  assert.ok(found, last);
  assert.ok(Number(found[1]) >= 0.97, `accuracy ${found[1]}`);
  assert.ok(Number(found[2]) >= 9000, `requests ${found[2]}`);
  // The loss itself takes two seconds to be noticed; a minute is what the demo gives up after.
  assert.ok(Number(found[5]) < 60_000, `failover ${found[5]} ms`);
  assert.match(done.stdout, /refused: Residency: cloud-1/);
});
