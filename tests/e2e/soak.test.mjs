// A gateway among replicas that fail and clients that go away: memory and descriptors stay as they were. Some seconds; with
// ATOLL_SLOW_TESTS=1 five minutes.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { eventually, Fleet } from './lib/atoll.mjs';
import { replica, staticGateway } from './lib/gateway.mjs';

const fleet = new Fleet();
const SECONDS = process.env.ATOLL_SLOW_TESTS ? 300 : 4;
const GROWTH_KIB = 24 * 1024;

fleet.it('memory and descriptors stay flat among failing replicas and clients that leave', async (t) => {
  process.env.ASAN_OPTIONS = [process.env.ASAN_OPTIONS, 'quarantine_size_mb=1'].filter(Boolean).join(':');
  const ok = (res) => res.writeHead(200, { 'Content-Type': 'application/json' }).end('{"ok":true}');
  let n = 0;
  const event = 'data: {"choices":[]}\n\n';
  const backs = [
    await replica((req, res) => ok(res)),
    await replica((req, res) => (n++ % 7 === 0 ? res.writeHead(500).end('{}') : ok(res))),
    await replica((req, res) => (n++ % 5 === 0 ? req.socket.destroy() : ok(res))),
    await replica((req, res) => void setTimeout(() => ok(res), n++ % 40)),
  ];
  const streams = await replica((req, res) => {
    res.writeHead(200, { 'Content-Type': 'text/event-stream' }).write(event);
    setTimeout(() => (n++ % 3 === 0 ? res.socket?.destroy() : res.end(event)), 5);
  });
  const policies = {
    m: { waiting: { timeout: '200ms' }, limits: { requests: 6, circuitErrors: 0 }, hedging: { after: '10ms' }, health: { active: { protocol: 'http', path: '/', interval: '200ms' }, passive: { ejection: '50ms', maxEjection: '200ms' } } },
    none: { waiting: { timeout: '20ms', requests: 4 } },
  };
  const gateway = await staticGateway(fleet, { m: backs.map((b) => b.endpoint), s: [streams.endpoint], none: [] }, { policies });
  const pid = gateway.proc.pid;
  const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
  const descriptors = () => readdirSync(`/proc/${pid}/fd`).length;
  let count = 0;
  const one = async (i) => {
    const cut = new AbortController();
    if (i % 11 === 0) setTimeout(() => cut.abort(), i % 20);
    const options = { signal: cut.signal, headers: { 'X-Atoll-Priority': ['low', 'normal', 'high'][i % 3] } };
    if (i % 4 === 0) await gateway.chat('s', { ...options, json: { stream: true } });
    else if (i % 9 === 0) await gateway.infer('none', options);
    else if (i % 2) await gateway.infer('m', { ...options, body: JSON.stringify({ x: 'y'.repeat((i * 997) % 60_000) }) });
    else await gateway.chat('m', options);
    count++;
  };
  const run = async (ms) => {
    const end = Date.now() + ms;
    await Promise.all(Array.from({ length: 24 }, async (_, k) => {
      for (let i = k; Date.now() < end; i += 24) await one(i);
    }));
    await eventually('nothing is under way', async () => (await gateway.metric('atoll_gateway_outstanding_requests')) === 0);
  };
  await run((SECONDS * 1000) / 3);
  const before = { memory: memory(), descriptors: descriptors() };
  await run((SECONDS * 1000 * 2) / 3);
  t.diagnostic(`${count} requests in ${SECONDS} s; ${before.memory} KiB then, ${memory()} KiB now; ${before.descriptors} descriptors then, ${descriptors()} now`);
  assert.ok(memory() - before.memory < GROWTH_KIB, `${before.memory} KiB grew to ${memory()} KiB`);
  assert.ok(descriptors() <= before.descriptors + 32, `${before.descriptors} descriptors became ${descriptors()}`); // connections that are kept
  assert.equal(await gateway.metric('atoll_gateway_queue_requests'), 0);
  assert.equal(await gateway.metric('atoll_gateway_queue_bytes'), 0);
  for (const b of [...backs, streams]) await b.stop();
}, { timeout: (SECONDS + 60) * 1000 });
