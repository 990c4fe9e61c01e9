// The file that stands for GPUs: struct standin_state of src/interpose/standin/state.h.
import { chmod, open } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL } from './atoll.mjs';

export const MIB = 1024 * 1024;
export const libraries = path.join(path.dirname(ATOLL), 'src/interpose');
export const probe = path.join(libraries, 'gpu-probe');
export const gpuId = (n) => `GPU-00000000-0000-0000-0000-00000000000${n}`;

const DEVICES = 8, PROCESSES = 64;
export const DEVICE = {
  bytes: 48 + 32 + 5 * 8 + PROCESSES * 16 + 9 * 8, total: 80, busy: 96, lost: 104, lies: 112, processes: 120, mig: 1144, parent: 1152, xid: 1160,
  computeMode: 1168, migFails: 1208,
};
const COPIES = 8 + DEVICES * DEVICE.bytes, TOO_OLD = COPIES + 8;
export const STATE_BYTES = TOO_OLD + 8 + PROCESSES * (3 + DEVICES) * 8;

export class GpuState {
  static async make(fleet, sizes) {
    const s = new GpuState();
    s.path = path.join(await fleet.dir('atoll-gpus'), 'state');
    await chmod(path.dirname(s.path), 0o755);
    s.file = await open(s.path, 'w+');
    await s.file.truncate(STATE_BYTES);
    await s.word(0, sizes.length);
    for (const [n, bytes] of sizes.entries()) {
      const id = gpuId(n + 1), at = 8 + n * DEVICE.bytes;
      await s.file.write(Buffer.from(id), 0, id.length, at);
      await s.file.write(Buffer.from('Stand-in'), 0, 8, at + 48);
      await s.word(at + DEVICE.total, bytes);
    }
    await chmod(s.path, 0o666);
    return s;
  }

  // For an agent, whose libraries are then the stand-ins.
  env() {
    return { LD_LIBRARY_PATH: libraries, STANDIN_GPU_STATE: this.path };
  }

  poke(device, field, value) {
    return this.word(8 + device * DEVICE.bytes + DEVICE[field], value);
  }

  async peek(device, field) {
    const word = Buffer.alloc(8);
    await this.file.read(word, 0, 8, 8 + device * DEVICE.bytes + DEVICE[field]);
    return Number(word.readBigInt64LE());
  }

  async word(at, value) {
    const word = Buffer.alloc(8);
    word.writeBigInt64LE(BigInt(value));
    await this.file.write(word, 0, 8, at);
  }

  async used(device) {
    const rows = Buffer.alloc(PROCESSES * 16);
    await this.file.read(rows, 0, rows.length, 8 + device * DEVICE.bytes + DEVICE.processes);
    let sum = 0n;
    for (let n = 0; n < PROCESSES; n++) {
      let alive = rows.readBigInt64LE(n * 16) !== 0n;
      try {
        if (alive) process.kill(Number(rows.readBigInt64LE(n * 16)), 0);
      } catch (e) {
        alive = e.code === 'EPERM';
      }
      sum += alive ? rows.readBigInt64LE(n * 16 + 8) : 0n;
    }
    return Number(sum);
  }

  // What parking copies, in bytes a microsecond; 0: at once.
  copies = (bytesPerUs) => this.word(COPIES, Math.round(bytesPerUs));
  tooOld = (yes) => this.word(TOO_OLD, yes);
}
