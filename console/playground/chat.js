// Chats with history, and plain text that is gone on with.
import { costOf, parseServerTiming } from './api.js';
import { Measure } from './measure.js';
import { $, make, prose, say, showFacts } from './view.js';

const now = () => performance.now();
const SHOW_MS = 60; // between two paintings of an answer that comes

const WHY = { length: 'ended by the most tokens', content_filter: 'held back by a filter', tool_calls: 'asks for a tool', cancelled: 'cancelled', error: 'broke off' };

export class Talk {
  // app: {gateway, model(), pricing(), run(action), told(request)}
  constructor(app) {
    Object.assign(this, { app, kind: 'chat', turns: [], image: null, pinned: true });
    $('composer').addEventListener('submit', (e) => { e.preventDefault(); this.submit(); });
    $('prompt').addEventListener('keydown', (e) => {
      if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
        e.preventDefault();
        this.submit();
      }
    });
    $('prompt').addEventListener('input', () => this.#grow());
    $('fresh').addEventListener('click', () => this.clear());
    $('again').addEventListener('click', () => this.again());
    $('attach').addEventListener('click', () => $('chatfile').click());
    $('chatfile').addEventListener('change', () => this.#attach($('chatfile').files[0]));
    $('log').addEventListener('scroll', () => (this.pinned = $('log').scrollHeight - $('log').scrollTop - $('log').clientHeight < 40));
  }

  setKind(kind) {
    if (this.kind !== kind) this.clear();
    this.kind = kind;
    $('promptlabel').textContent = kind === 'chat' ? 'Message' : 'Text to go on with';
    $('prompt').placeholder = kind === 'chat' ? 'Ask something' : 'Write the beginning; the model goes on';
    $('fresh').textContent = kind === 'chat' ? 'New chat' : 'Clear';
  }

  clear() {
    if (this.app.busy()) return;
    this.turns = [];
    this.#attach(null);
    $('log').replaceChildren();
    $('again').disabled = true;
    $('prompt').focus({ preventScroll: true });
  }

  #grow() {
    const area = $('prompt');
    area.style.height = 'auto';
    area.style.height = `${Math.min(area.scrollHeight + 2, 220)}px`;
  }

  async #attach(file) {
    $('chatfile').value = '';
    this.image = null;
    if (file) {
      this.image = await new Promise((resolve) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.onerror = () => resolve(null);
        reader.readAsDataURL(file);
      });
      if (!this.image) say('The file cannot be read');
    }
    this.#showImage(file?.name ?? '');
  }

  #showImage(name) {
    $('attached').hidden = !this.image;
    $('attached').replaceChildren();
    if (this.image) {
      const remove = make('button', { type: 'button', className: 'quiet', textContent: 'Remove' });
      remove.addEventListener('click', () => this.#attach(null));
      $('attached').append(make('img', { src: this.image, alt: name }), remove);
    }
  }

  #bubble(role, text, image) {
    const body = make('div', { className: 'body' });
    if (image) body.append(make('img', { src: image, alt: 'the image that was sent' }));
    body.append(prose(text));
    const bubble = make('article', { className: `turn ${role}` }, make('h3', { textContent: role === 'user' ? 'You' : this.app.model() }), body, make('p', { className: 'note' }));
    $('log').append(bubble);
    this.#follow();
    return bubble;
  }

  #follow() {
    if (this.pinned) $('log').scrollTop = $('log').scrollHeight;
  }

  submit() {
    const text = $('prompt').value;
    if (this.app.busy() || (text.trim() === '' && !this.image)) return;
    const image = this.image;
    this.pinned = true;
    this.turns.push({ role: 'user', text, image, bubble: this.#bubble('user', text, image) });
    $('prompt').value = '';
    this.#grow();
    this.#attach(null);
    this.#ask();
  }

  // What was refused goes back to where it can be mended, and is no part of the history.
  #takeBack() {
    const at = this.turns.findLastIndex((t) => t.role === 'user');
    if (at < 0 || $('prompt').value !== '') return;
    const [refused] = this.turns.splice(at, 1);
    refused.bubble.remove();
    $('prompt').value = refused.text;
    this.image = refused.image;
    this.#showImage('');
    this.#grow();
  }

  again() {
    if (this.app.busy() || this.turns.length === 0) return;
    while (this.turns.at(-1)?.role === 'assistant') this.turns.pop().bubble.remove();
    this.#ask();
  }

  #body() {
    const number = (id) => ($(id).value.trim() === '' ? undefined : Number($(id).value));
    const stop = $('stop').value.split('\n').filter((line) => line !== '').map((line) => line.replaceAll('\\n', '\n'));
    const stream = $('stream').checked;
    const common = {
      model: this.app.model(),
      max_tokens: number('max'),
      temperature: number('temperature'),
      top_p: number('topp') === 1 ? undefined : number('topp'),
      seed: number('seed'),
      stop: stop.length ? stop : undefined,
      stream: stream || undefined,
      stream_options: stream ? { include_usage: true } : undefined,
    };
    if (this.kind === 'text') return { ...common, prompt: this.turns.map((t) => t.text).join('') };
    const system = $('system').value.trim();
    const messages = this.turns.filter((t) => t.text !== '' || t.image).map((t) => ({
      role: t.role,
      content: t.image ? [...(t.text ? [{ type: 'text', text: t.text }] : []), { type: 'image_url', image_url: { url: t.image } }] : t.text,
    }));
    return { ...common, messages: [...(system ? [{ role: 'system', content: system }] : []), ...messages] };
  }

  #ask() {
    const path = this.kind === 'chat' ? 'v1/chat/completions' : 'v1/completions';
    const value = this.#body();
    const body = JSON.stringify(value);
    this.app.told({ path, body, stream: value.stream === true });
    const turn = { role: 'assistant', text: '', bubble: null };
    return this.app.run(async (signal) => {
      const measure = new Measure(now);
      const painter = this.#painter(turn, measure);
      let headers = null;
      let reason = null;
      turn.bubble = this.#bubble('assistant', '');
      turn.bubble.setAttribute('aria-busy', 'true');
      this.turns.push(turn);
      try {
        headers = await this.app.gateway.complete(path, body, value.stream === true, (event, head) => {
          headers = head;
          measure.onHead(parseServerTiming(head.get('server-timing')));
          const choice = event?.choices?.[0];
          const piece = choice?.delta?.content ?? choice?.message?.content ?? choice?.text ?? '';
          const thought = choice?.delta?.reasoning_content ?? '';
          if (piece || thought) measure.onPiece();
          turn.text += piece;
          reason = choice?.finish_reason ?? reason;
          measure.usage = event?.usage ?? measure.usage;
          measure.timings = event?.timings ?? measure.timings;
          painter.soon(headers);
        }, signal);
        return { text: turn.text };
      } catch (error) {
        reason = error.name === 'AbortError' ? 'cancelled' : 'error';
        if ([400, 413, 415, 422].includes(error.status) && turn.text === '') this.#takeBack();
        throw error;
      } finally {
        measure.onEnd();
        measure.cost = reason === 'error' && !measure.usage ? null : costOf(measure.usage, this.app.pricing());
        painter.end(headers);
        this.#ended(turn, measure, reason, headers);
      }
    });
  }

  #painter(turn, measure) {
    let timer = null;
    let at = null;
    const paint = () => {
      timer = null;
      turn.bubble.querySelector('.body').replaceChildren(prose(turn.text));
      showFacts(measure, at);
      this.#follow();
    };
    return {
      soon: (headers) => {
        at = headers;
        timer ??= setTimeout(paint, SHOW_MS + turn.text.length / 100); // long ones cost more to show
      },
      end: (headers) => {
        clearTimeout(timer);
        at = headers;
        paint();
      },
    };
  }

  #ended(turn, measure, reason, headers) {
    turn.bubble.removeAttribute('aria-busy');
    if (turn.text === '' && reason !== 'stop' && reason !== 'length') {
      turn.bubble.remove();
      this.turns.splice(this.turns.indexOf(turn), 1);
    }
    const parts = [];
    if (WHY[reason]) parts.push(WHY[reason]);
    if (turn.text === '' && (reason === 'stop' || reason === 'length')) parts.push('an empty answer');
    if (measure.answerTokens) parts.push(`${measure.answerTokens} tokens`);
    if (measure.rate) parts.push(`${measure.rate.toFixed(measure.rate < 100 ? 1 : 0)} tokens/s`);
    turn.bubble.querySelector('.note').textContent = parts.join(' · ');
    $('again').disabled = this.turns.length === 0;
    showFacts(measure, headers, { done: true });
    if (reason !== 'error') say(reason === 'cancelled' ? 'Cancelled' : `Answer: ${turn.text.slice(0, 1000)}`);
  }
}
