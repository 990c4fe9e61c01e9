// Plain HTTPS calls to a server, for what no client library says: forged tokens, odd bodies.
import { request } from 'node:https';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from './proc.mjs';

// {url, ca, cert, key} of an admin.kubeconfig (written by the server, one line per value).
export async function credentials(kubeconfig) {
  const text = await readFile(kubeconfig, 'utf8');
  const value = (key) => new RegExp(`^\\s*${key}: (\\S+)$`, 'm').exec(text)[1];
  const pem = (key) => Buffer.from(value(key), 'base64').toString();
  return { url: value('server'), ca: pem('certificate-authority-data'), cert: pem('client-certificate-data'), key: pem('client-key-data') };
}

// Returns {status, headers, body}; body parsed when it is JSON.
export function call({ url, ca, cert, key, agent = false }, method, target, body, headers = {}) {
  const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const req = request(new URL(target, url), { method, ca, cert, key, headers: { 'Content-Type': 'application/json', ...(payload === undefined ? {} : { 'Content-Length': Buffer.byteLength(payload) }), ...headers }, agent, timeout: 30_000 }, (res) => {
      let text = '';
      res.setEncoding('utf8');
      res.on('data', (d) => {
        text += d;
      });
      res.on('end', () => {
        let parsed = text;
        try {
          parsed = JSON.parse(text);
        } catch {
          // not JSON: the caller sees the text
        }
        resolve({ status: res.statusCode, headers: res.headers, body: parsed });
      });
      res.on('error', reject);
    });
    req.on('timeout', () => req.destroy(new Error(`${method} ${target}: no answer`)));
    req.on('error', reject);
    req.end(payload);
  });
}

// A certificate request for a common name, made by openssl.
export async function certificateRequest(commonName) {
  const dir = await mkdtemp(path.join(process.env.TMPDIR || tmpdir(), 'atoll-csr-'));
  try {
    const r = await run('openssl', ['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', path.join(dir, 'key'), '-subj', `/CN=${commonName}`]);
    if (r.code !== 0) throw new Error(`openssl: ${r.err}`);
    return { csr: r.out, key: await readFile(path.join(dir, 'key'), 'utf8') };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
