// What every role exposes is good Prometheus text, by Prometheus' own checker, after real work.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, Fleet, ROOT, run } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const QUICKSTART = path.join(ROOT, 'examples/quickstart');
const fleet = new Fleet();

async function check(role, text) {
  assert.match(text, /^# TYPE atoll_/m, `${role} exposes nothing`);
  const checked = await run('promtool', ['check', 'metrics'], { input: text });
  assert.equal(checked.code, 0, `${role}: ${checked.out}${checked.err}`);
  assert.equal(checked.out + checked.err, '', role);
}

fleet.it('server and gateway pass promtool check metrics', async () => {
  const state = await fleet.dir('atoll-metrics');
  const dev = fleet.start('atoll dev', ['dev', '--state', state, '--free-ports', '--models', path.join(QUICKSTART, 'models'), '--site', 'onprem', '--site', 'edge']);
  await dev.line(/^ready dev$/m);
  const [, gateway] = await dev.line(/^gateway\s+(http\S+)$/m);
  const env = { KUBECONFIG: path.join(state, 'admin.kubeconfig') };
  const atoll = async (...args) => {
    const r = await run(ATOLL, args, { env });
    assert.equal(r.code, 0, `atoll ${args.join(' ')}\n${r.out}${r.err}`);
    return r.out;
  };
  await atoll('apply', '-f', path.join(QUICKSTART, '2-digits.yaml'));
  await atoll('wait', '--for=condition=Available', 'deployment/digits', '--timeout=60s');
  assert.match(await atoll('infer', 'digits', '--image', path.join(QUICKSTART, 'data/digit-3.pgm')), /label INT64 \[1\]: 3/);

  const admin = await credentials(env.KUBECONFIG);
  const answer = await call(admin, 'GET', '/metrics');
  assert.equal(answer.status, 200);
  assert.match(answer.headers['content-type'], /^text\/plain; version=0\.0\.4/);
  await check('server', answer.body);

  const token = (await readFile(path.join(state, 'gateway.token'), 'utf8').catch(() => '')).trim();
  const got = await fetch(`${gateway}/metrics`, { headers: token ? { authorization: `Bearer ${token}` } : {} });
  assert.equal(got.status, 200);
  const text = await got.text();
  assert.match(text, /digits/);
  await check('gateway', text);
});
