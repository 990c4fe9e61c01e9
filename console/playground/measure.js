// What one answer took: marks of a clock, tokens, stages. All times in milliseconds; the clock is handed in.

export function quantile(list, q) {
  if (!list.length) return null;
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length - 1) * q + 0.5))];
}

const BURST_MS = 0.3;

export class Measure {
  constructor(now) {
    this.now = now;
    this.sent = now();
    Object.assign(this, { head: null, first: null, last: null, end: null, pieces: 0, gaps: [], before: null, inBurst: 0, usage: null, timings: null, server: [], pricing: null, cost: null });
  }

  onHead(server) {
    this.head ??= this.now();
    this.server = server;
  }

  // Some of the answer's text has come. Pieces that come together took their time together: each is given its part of it.
  onPiece() {
    const at = this.now();
    this.pieces++;
    if (this.first == null) {
      this.first = this.last = this.before = at;
      return;
    }
    if (at - this.last > BURST_MS) {
      this.before = this.last;
      this.inBurst = 0;
    }
    this.inBurst++;
    this.gaps.length -= this.inBurst - 1;
    for (let i = 0; i < this.inBurst; i++) this.gaps.push((at - this.before) / this.inBurst);
    this.last = at;
  }

  onEnd() {
    this.end = this.now();
  }

  get total() {
    return (this.end ?? this.now()) - this.sent;
  }

  get toFirst() {
    return this.first == null ? null : this.first - this.sent;
  }

  get answerTokens() {
    return this.usage?.completion_tokens ?? (this.pieces || null);
  }

  // Tokens a second while the answer came: the first one is the prompt's doing.
  get rate() {
    const n = this.answerTokens;
    if (!n) return null;
    if (this.timings?.predicted_ms > 0 && this.timings.predicted_n > 1) return ((this.timings.predicted_n - 1) / this.timings.predicted_ms) * 1000;
    const ms = this.pieces > 1 ? this.last - this.first : this.total;
    const tokens = this.pieces > 1 ? n - 1 : n;
    return ms > 0 && tokens > 0 ? (tokens / ms) * 1000 : null;
  }

  #told(name) {
    return this.server.find((s) => s.name === name)?.ms ?? null;
  }

  // [{name, ms, what}]: one after the other, together the total.
  stages() {
    const queue = (this.#told('gw-queue') ?? 0) + (this.timings?.queue_ms ?? this.#told('queue') ?? 0);
    const list = [];
    const add = (name, ms, what) => list.push({ name, ms: Math.max(0, ms), what });
    const total = this.total;
    const knowsQueue = this.#told('gw-queue') != null || this.timings?.queue_ms != null || this.#told('queue') != null;
    if (this.#told('compute') != null) { // a model of tensors
      const compute = this.#told('compute');
      add('Queue', queue, 'waiting for a replica and for a batch');
      add('Compute', compute, 'in the model');
      add('Rest', total - queue - compute, 'gateway, network and this page');
      return list;
    }
    if (this.first == null || this.pieces < 2) { // it came whole
      if (knowsQueue) add('Queue', queue, 'waiting for a replica and in it');
      const prompt = this.timings?.prompt_ms ?? 0;
      const answer = this.timings?.predicted_ms ?? 0;
      if (this.timings) {
        add('Prompt', prompt, 'reading the prompt, up to the first token');
        add('Answer', answer, 'the tokens after the first');
      }
      add(list.length ? 'Rest' : 'All', total - (knowsQueue ? queue : 0) - prompt - answer, list.length ? 'gateway, network and this page' : 'from the request to the whole answer');
      return list;
    }
    const toFirst = this.first - this.sent;
    const prompt = this.timings?.prompt_ms;
    if (knowsQueue) add('Queue', Math.min(queue, toFirst), 'waiting for a replica and in it');
    if (prompt != null) {
      const rest = toFirst - queue - prompt;
      add('Prompt', Math.min(prompt, toFirst), 'reading the prompt, up to the first token');
      if (rest > 0) add('Rest', rest, 'gateway, network and this page');
    } else {
      add('Prompt', toFirst - (knowsQueue ? queue : 0), 'up to the first token, with the way there');
    }
    add('Answer', (this.end ?? this.now()) - this.first, 'from the first token to the last');
    return list;
  }
}

export const ms = (value) => (value == null ? '–' : value < 10 ? `${value.toFixed(2)} ms` : value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`);

export function money(usd) {
  if (usd == null) return '–';
  if (usd === 0) return '$0';
  return usd >= 0.01 ? `$${usd.toFixed(4)}` : `$${usd.toPrecision(3)}`.replace(/(\.\d*?)0+$/, '$1');
}
