// Asking the gateway: models, metadata, answers whole and as streams. No page element is known here, so that Node's tests can use it.

export class ApiError extends Error {
  constructor(message, more = {}) {
    super(message);
    this.name = 'ApiError';
    Object.assign(this, { status: 0, code: null, param: null, retryAfterMs: null, requestId: null, kind: 'answer' }, more);
  }
}

// "a;dur=1.5;desc=\"x\", b" -> [{name, ms, text}]
export function parseServerTiming(header) {
  const found = [];
  for (const part of (header ?? '').match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g) ?? []) {
    const [name, ...params] = part.match(/(?:[^;"]|"(?:[^"\\]|\\.)*")+/g).map((s) => s.trim());
    const entry = { name, ms: 0, text: '' };
    for (const param of params) {
      const at = param.indexOf('=');
      const key = at < 0 ? param : param.slice(0, at).trim().toLowerCase();
      const value = at < 0 ? '' : param.slice(at + 1).trim().replace(/^"(.*)"$/s, '$1').replace(/\\(.)/g, '$1');
      if (key === 'dur') entry.ms = Number(value) || 0;
      if (key === 'desc') entry.text = value;
    }
    if (/^[^=\s]+$/.test(entry.name)) found.push(entry);
  }
  return found;
}

// Events of a text/event-stream, as they become whole. push(text) -> [data]; an event may have several data lines.
export class EventSplitter {
  #rest = '';
  push(text) {
    this.#rest += text;
    const events = [];
    for (;;) {
      const end = /\r\n\r\n|\n\n|\r\r/.exec(this.#rest);
      if (!end) return events;
      const block = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      const data = block.split(/\r\n|\n|\r/).filter((l) => l.startsWith('data:')).map((l) => l.slice(l[5] === ' ' ? 6 : 5));
      if (data.length) events.push(data.join('\n'));
    }
  }
}

export function retryAfterOf(headers, now = Date.now()) {
  const ms = headers.get('retry-after-ms');
  if (ms && Number.isFinite(Number(ms))) return Number(ms);
  const text = headers.get('retry-after');
  if (!text) return null;
  if (/^\d+$/.test(text.trim())) return Number(text) * 1000;
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : Math.max(0, at - now);
}

function errorOf(status, text, headers) {
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    // no JSON: the text itself is what there is to say
  }
  const error = value?.error ?? value;
  const message = (typeof error === 'string' ? error : error?.message) || text.trim().slice(0, 400) || `The gateway answered ${status}.`;
  return new ApiError(message, {
    status,
    code: error?.code ?? null,
    param: error?.param ?? null,
    retryAfterMs: retryAfterOf(headers),
    requestId: headers.get('x-request-id'),
  });
}

// Money of one answer in USD, from what the answer itself says or from the model's prices; null: neither is known.
export function costOf(usage, pricing) {
  if (usage?.cost != null && Number.isFinite(Number(usage.cost))) return Number(usage.cost);
  const price = (name) => (pricing?.[name] == null ? null : Number(pricing[name]));
  const [input, output] = [price('prompt') ?? price('input'), price('completion') ?? price('output')];
  if (!usage || !Number.isFinite(input ?? NaN) || !Number.isFinite(output ?? NaN)) return null;
  return (usage.prompt_tokens ?? 0) * input + (usage.completion_tokens ?? 0) * output + (price('request') ?? 0);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
export const CURL_BODY_MAX = 16384; // longer ones go by a file

// The same request for a terminal. The key is not in it: it is read from a variable.
export function curlOf({ url, method = 'POST', body = null, stream = false, withKey = true }) {
  const lines = [`curl ${stream ? '-N ' : ''}-sS${method === 'POST' ? '' : ` -X ${method}`} ${quoted(url)}`];
  if (withKey) lines.push('-H "Authorization: Bearer $ATOLL_API_KEY"');
  if (body != null) {
    lines.push("-H 'Content-Type: application/json'");
    lines.push(body.length > CURL_BODY_MAX ? '--data-binary @request.json' : `--data-binary ${quoted(body)}`);
  }
  return lines.join(' \\\n  ');
}

export class Gateway {
  // base: where /v1 and /v2 are. key(): the API key or ''.
  constructor(base, key, ask = (...args) => globalThis.fetch(...args)) {
    Object.assign(this, { base, key, ask });
  }

  url(path) {
    return new URL(path, this.base).href;
  }

  async send(path, { method = 'GET', body = null, signal, headers = {} } = {}) {
    const key = this.key();
    let answer;
    try {
      answer = await this.ask(this.url(path), {
        method,
        body,
        signal,
        cache: 'no-store',
        credentials: 'omit',
        redirect: 'error',
        headers: { ...(body == null ? {} : { 'Content-Type': 'application/json' }), ...(key ? { Authorization: `Bearer ${key}` } : {}), ...headers },
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new ApiError('The gateway cannot be reached.', { kind: 'network' });
    }
    if (!answer.ok) throw errorOf(answer.status, await answer.text().catch(() => ''), answer.headers);
    return answer;
  }

  async #json(path, options) {
    const answer = await this.send(path, options);
    const text = await this.#text(answer);
    try {
      return { value: JSON.parse(text), text, headers: answer.headers };
    } catch {
      throw new ApiError('The answer is no JSON.', { status: answer.status, kind: 'protocol', requestId: answer.headers.get('x-request-id') });
    }
  }

  async #text(answer) {
    try {
      return await answer.text();
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new ApiError('The answer was cut off before its end.', { status: answer.status, kind: 'cut', requestId: answer.headers.get('x-request-id') });
    }
  }

  // [{name, ready, pricing}] of OpenAI's list and the Open Inference Protocol's index together, by name.
  async models(signal) {
    const [list, index] = await Promise.all([
      this.#json('v1/models', { signal }),
      this.#json('v2/repository/index', { method: 'POST', body: '{}', signal }).catch((error) => {
        if (error.name === 'AbortError' || error.status === 401) throw error;
        return { value: [] }; // an older gateway has none
      }),
    ]);
    const found = new Map();
    for (const m of Array.isArray(list.value.data) ? list.value.data : []) {
      if (typeof m?.id === 'string') found.set(m.id, { name: m.id, ready: m.ready !== false, pricing: m.pricing ?? null, versions: [] });
    }
    for (const m of Array.isArray(index.value) ? index.value : []) {
      if (typeof m?.name !== 'string') continue;
      const model = found.get(m.name) ?? { name: m.name, ready: m.state === 'READY', pricing: null, versions: [] };
      if (m.version) model.versions.push(m.version);
      found.set(m.name, model);
    }
    return [...found.values()].sort((a, b) => a.name.localeCompare(b.name));
  }

  // The Open Inference Protocol's metadata; null: the model speaks another protocol.
  async metadata(name, signal) {
    try {
      const { value } = await this.#json(`v2/models/${encodeURIComponent(name)}`, { signal });
      return Array.isArray(value?.inputs) && Array.isArray(value?.outputs) ? value : null;
    } catch (error) {
      if (error.kind === 'protocol' || [400, 404, 405, 501].includes(error.status)) return null;
      throw error;
    }
  }

  async infer(name, body, signal) {
    return this.#json(`v2/models/${encodeURIComponent(name)}/infer`, { method: 'POST', body, signal, headers: { 'X-Atoll-Timing': '1' } });
  }

  // Chats and completions. on(event, headers): each event of a stream, or the whole answer once. Resolves to the headers.
  async complete(path, body, stream, on, signal) {
    const options = { method: 'POST', body, signal, headers: { 'X-Atoll-Timing': '1' } };
    if (!stream) {
      const { value, headers } = await this.#json(path, options);
      on(value, headers);
      return headers;
    }
    const answer = await this.send(path, options);
    const broken = (message, kind) => new ApiError(message, { status: answer.status, kind, requestId: answer.headers.get('x-request-id') });
    if (!(answer.headers.get('content-type') ?? '').startsWith('text/event-stream')) { // it does not stream, whatever was asked
      const text = await this.#text(answer);
      try {
        on(JSON.parse(text), answer.headers);
      } catch {
        throw broken('The answer is neither a stream of events nor JSON.', 'protocol');
      }
      return answer.headers;
    }
    const splitter = new EventSplitter();
    const decoder = new TextDecoder();
    const reader = answer.body.getReader();
    let finished = false;
    on(null, answer.headers); // the head has come
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (error.name === 'AbortError') throw error;
        throw broken('The answer was cut off before its end.', 'cut');
      }
      for (const data of splitter.push(piece.done ? `${decoder.decode()}\n\n` : decoder.decode(piece.value, { stream: true }))) {
        if (data.trim() === '[DONE]') {
          finished = true;
          continue;
        }
        let event;
        try {
          event = JSON.parse(data);
        } catch {
          throw broken('An event of the stream is no JSON.', 'protocol');
        }
        if (event.error) throw broken(event.error.message ?? String(event.error), 'cut');
        if (event.choices?.[0]?.finish_reason) finished = true;
        on(event, answer.headers);
      }
      if (piece.done) break;
    }
    if (!finished) throw broken('The answer ended without its end mark.', 'cut');
    return answer.headers;
  }
}
