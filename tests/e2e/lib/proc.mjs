// Child processes of tests: started, watched for a line, stopped by their own process id, their output kept for the report.
import { spawn } from 'node:child_process';

const KEEP_BYTES = 200_000;

export class Proc {
  constructor(name, command, args, options = {}) {
    this.name = name;
    this.out = '';
    this.err = '';
    this.ended = false;
    this.waiters = new Set();
    this.child = spawn(command, args, {
      stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
    });
    this.child.stdout.on('data', (d) => this.#keep('out', d));
    this.child.stderr.on('data', (d) => this.#keep('err', d));
    this.exited = new Promise((resolve) => {
      this.child.on('error', (error) => {
        this.err += `${error}\n`;
        this.#end(resolve, { code: null, signal: null, error });
      });
      this.child.on('close', (code, signal) => this.#end(resolve, { code, signal }));
    });
  }

  #keep(stream, data) {
    this[stream] = (this[stream] + data.toString()).slice(-KEEP_BYTES);
    for (const check of [...this.waiters]) check();
  }

  #end(resolve, status) {
    if (this.ended) return;
    this.ended = true;
    this.status = status;
    resolve(status);
    for (const check of [...this.waiters]) check();
  }

  get pid() {
    return this.child.pid;
  }

  // The first match of pattern in a stream's output; fails when the process ends or the time is up before.
  line(pattern, { stream = 'out', timeoutMs = 30_000 } = {}) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => finish(reject, new Error(`${this.name}: no ${pattern} within ${timeoutMs} ms\n${this.log()}`)), timeoutMs);
      const finish = (settle, value) => {
        clearTimeout(timer);
        this.waiters.delete(check);
        settle(value);
      };
      const check = () => {
        const match = pattern.exec(this[stream]);
        if (match) finish(resolve, match);
        else if (this.ended) finish(reject, new Error(`${this.name} ended (${JSON.stringify(this.status)}) without ${pattern}\n${this.log()}`));
      };
      this.waiters.add(check);
      check();
    });
  }

  async kill(signal = 'SIGKILL') {
    if (!this.ended) this.child.kill(signal);
    return this.exited;
  }

  // Polite stop; forced after timeoutMs, which is an error.
  async stop({ signal = 'SIGTERM', timeoutMs = 20_000 } = {}) {
    if (this.ended) return this.status;
    this.child.kill(signal);
    let timer;
    const late = new Promise((resolve) => {
      timer = setTimeout(() => resolve('late'), timeoutMs);
    });
    const first = await Promise.race([this.exited, late]);
    clearTimeout(timer);
    if (first !== 'late') return first;
    await this.kill();
    throw new Error(`${this.name} did not end within ${timeoutMs} ms of ${signal}\n${this.log()}`);
  }

  log(bytes = 6000) {
    return `--- ${this.name} (pid ${this.pid}, ${this.ended ? JSON.stringify(this.status) : 'running'})\n` +
      `${this.out.slice(-bytes)}\n${this.err.slice(-bytes)}`;
  }
}

// Run to the end. Returns {code, out, err}; never throws for an exit status.
export async function run(command, args, { input, env, cwd, timeoutMs = 60_000 } = {}) {
  const proc = new Proc(`${command} ${args.join(' ')}`, command, args, { stdin: input === undefined ? 'ignore' : 'pipe', env, cwd });
  if (input !== undefined) {
    proc.child.stdin.on('error', () => {});
    proc.child.stdin.end(input);
  }
  const timer = setTimeout(() => {
    proc.err += `\n(killed: over ${timeoutMs} ms)\n`;
    proc.child.kill('SIGKILL');
  }, timeoutMs);
  const status = await proc.exited;
  clearTimeout(timer);
  return { code: status.code, signal: status.signal, out: proc.out, err: proc.err };
}

