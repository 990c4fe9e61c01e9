// Debian's docker-registry on a free port, and a proxy before a registry that lies as a test tells it to.
import { execFileSync } from 'node:child_process';
import { createServer as httpServer, request } from 'node:http';
import { createServer } from 'node:net';
import path from 'node:path';
import { writeFile } from 'node:fs/promises';
import { eventually } from './atoll.mjs';

const has = (command) => {
  try {
    execFileSync('/bin/sh', ['-c', `command -v ${command}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
export const noRegistry = has('docker-registry') ? false : 'no docker-registry here: tools/install-deps test';
export const noSkopeo = has('skopeo') && has('umoci') ? false : 'no skopeo or umoci here: tools/install-deps test';

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// http: more of its section http; top: more sections.
export async function registry(fleet, { top = '', tls } = {}) {
  const dir = await fleet.dir('atoll-registry');
  const port = await freePort();
  const file = path.join(dir, 'config.yml');
  const secure = tls ? `, tls: {certificate: ${tls.cert}, key: ${tls.key}}` : '';
  await writeFile(file, `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${dir}/data}}\nhttp: {addr: "127.0.0.1:${port}"${secure}}\n${top}`);
  const proc = fleet.start('registry', ['serve', file], { command: 'docker-registry', env: { OTEL_TRACES_EXPORTER: 'none' } });
  const stop = proc.stop.bind(proc);
  proc.stop = async () => ({ ...(await stop('SIGKILL')), code: 0 }); // it has no orderly end
  await eventually('the registry listens', () => new Promise((resolve) => {
    const socket = createServer();
    socket.once('error', () => resolve(true));
    socket.listen(port, '127.0.0.1', () => socket.close(() => resolve(false)));
  }));
  return { host: `127.0.0.1:${port}`, dir, proc };
}

// A server between the client and the registry at host. lie(req, res, forward) answers, or forwards.
export async function liar(host, lie) {
  const seen = [];
  const server = httpServer((req, res) => {
    seen.push({ method: req.method, url: req.url, headers: req.headers });
    const forward = (change = (x) => x) => {
      const out = request({ host: '127.0.0.1', port: Number(host.split(':')[1]), method: req.method, path: req.url, headers: { ...req.headers } }, (from) => {
        const pieces = [];
        from.on('data', (d) => pieces.push(d));
        from.on('end', () => {
          const a = change({ status: from.statusCode, headers: { ...from.headers }, body: Buffer.concat(pieces) });
          if (a) res.writeHead(a.status, a.headers).end(a.body);
        });
      });
      out.on('error', () => res.destroy());
      req.pipe(out);
    };
    lie(req, res, forward);
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return {
    host: `127.0.0.1:${server.address().port}`,
    seen,
    close: () => {
      server.closeAllConnections?.();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
