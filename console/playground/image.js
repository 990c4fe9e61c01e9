// Pictures and tensors for models of the Open Inference Protocol.
import { ApiError, costOf, parseServerTiming } from './api.js';
import { Pad } from './draw.js';
import { Measure } from './measure.js';
import { boxOf, classesIn, classesOf, emptyRequest, netpbmOf, pictureOf, placeOf, rangeOf, resize, shapeFor, tensorOf } from './tensor.js';
import { $, make, say, showFacts } from './view.js';

const now = () => performance.now();
const BARS = 10;
const PHOTO_SIDE_MAX = 2048; // larger photos are made smaller as they come in
const SOON_MS = 250;

export const pictureInput = (metadata) => metadata?.inputs.find((input) => pictureOf(input)) ?? null;

function bars(outputs, names) {
  const found = classesIn(outputs);
  if (!found) return null;
  const list = make('ol', { className: 'bars' });
  for (const { index, share, raw } of found.list.slice(0, BARS)) {
    const label = names[index] || String(index);
    const fill = make('i');
    fill.style.width = `${Math.max(share * 100, 0.4)}%`;
    list.append(make('li', { title: `class ${index}, value ${raw}` }, make('b', { textContent: label }), make('span', { className: 'track' }, fill), make('span', { className: 'share', textContent: `${(share * 100).toFixed(1)} %` })));
  }
  const best = found.list[0];
  const rest = found.list.length - BARS;
  return {
    best: names[best.index] || String(best.index),
    share: best.share,
    element: make('div', {}, make('p', { className: 'best' }, make('strong', { textContent: names[best.index] || String(best.index) }), make('span', { textContent: `${(best.share * 100).toFixed(1)} %` })), list,
      make('p', { className: 'note', textContent: `Output ${found.name}${found.made ? ', made into shares by softmax' : ''}${rest > 0 ? `; ${rest} less likely ones are not shown` : ''}.` })),
  };
}

const otherOutputs = (outputs, shown) => (outputs ?? []).filter((o) => !shown || (o.data?.length ?? 0) <= 4);

export class Look {
  // app: as of Talk
  constructor(app) {
    Object.assign(this, { app, metadata: null, input: null, timer: null });
    this.pad = new Pad($('pad'), (what) => this.#changed(what));
    $('clear').addEventListener('click', () => { this.pad.clear(); $('guess').replaceChildren(); $('pad').focus(); });
    $('upload').addEventListener('click', () => $('file').click());
    $('file').addEventListener('change', () => this.#file($('file').files[0]));
    $('classify').addEventListener('click', () => this.ask());
    for (const id of ['range', 'order', 'size', 'channels', 'fit', 'invert']) $(id).addEventListener('change', () => this.#preview());
    $('pad').addEventListener('dragover', (e) => e.preventDefault());
    $('pad').addEventListener('drop', (e) => { e.preventDefault(); this.#file(e.dataTransfer.files[0]); });
    document.addEventListener('paste', (e) => {
      const file = [...(e.clipboardData?.files ?? [])].find((f) => f.type.startsWith('image/'));
      if (file && !$('look').hidden) this.#file(file);
    });
  }

  setModel(metadata) {
    if (this.metadata === metadata) return;
    this.metadata = metadata;
    this.input = pictureInput(metadata);
    $('guess').replaceChildren();
    if (!this.input) return;
    const picture = pictureOf(this.input);
    $('range').value = rangeOf(metadata, this.input, picture);
    $('order').value = picture.order;
    $('size').value = `${picture.width}x${picture.height}`;
    $('channels').value = String(picture.channels);
    $('fit').value = picture.width <= 64 && picture.channels === 1 ? 'trim' : 'cover';
    $('classes').value = (classesOf(metadata) ?? []).join('\n');
    this.#preview();
  }

  async #file(file) {
    $('file').value = '';
    if (!file) return;
    try {
      const bytes = new Uint8Array(await file.arrayBuffer());
      const plain = netpbmOf(bytes);
      this.pad.setPhoto(plain ?? (await this.#decoded(file)));
    } catch {
      this.app.trouble({ title: 'This is no image that can be read', text: file.name, todo: 'PNG, JPEG, WebP, GIF, BMP and Netpbm (pgm, ppm) can.' });
    }
  }

  async #decoded(file) {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, PHOTO_SIDE_MAX / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale))];
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const g = canvas.getContext('2d');
    g.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    return g.getImageData(0, 0, width, height);
  }

  #wanted() {
    const [width, height = width] = $('size').value.toLowerCase().split(/\s*[x×*]\s*/).map(Number);
    if (!(Number.isInteger(width) && Number.isInteger(height) && width >= 1 && height >= 1 && width * height <= 4096 * 4096)) return null;
    return { width, height, channels: Number($('channels').value), order: $('order').value };
  }

  #seen() {
    const wanted = this.#wanted();
    if (!wanted) return null;
    const source = this.pad.picture();
    const { width: W, height: H } = wanted;
    if (source.width === W && source.height === H) return { wanted, picture: source };
    const fit = $('fit').value;
    const box = fit === 'trim' ? boxOf(source) : null;
    const margin = box && W >= 20 ? Math.round(W / 7) : 0; // as the makers of MNIST left it
    const place = placeOf(fit, source.width, source.height, W - 2 * margin, H - 2 * margin, box);
    return { wanted, picture: resize(source, W, H, { ...place, dx: place.dx + margin, dy: place.dy + margin }) };
  }

  #preview() {
    const seen = this.#seen();
    $('size').setAttribute('aria-invalid', String(!seen));
    if (!seen) return;
    const { picture, wanted } = seen;
    const canvas = $('seen');
    Object.assign(canvas, { width: picture.width, height: picture.height });
    const data = new Uint8ClampedArray(picture.data);
    for (let i = 0; i < data.length; i += 4) {
      const grey = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
      for (let c = 0; c < 3; c++) {
        const value = wanted.channels === 1 ? grey : data[i + c];
        data[i + c] = $('invert').checked ? 255 - value : value;
      }
      data[i + 3] = 255;
    }
    canvas.getContext('2d').putImageData(new ImageData(data, picture.width, picture.height), 0, 0);
    $('seennote').textContent = `What the model gets: ${wanted.width} × ${wanted.height}, ${wanted.channels === 1 ? 'grey' : `${wanted.channels} channels`}`;
  }

  #changed(what) {
    clearTimeout(this.timer);
    if (what === 'cleared') {
      $('guess').replaceChildren();
      this.#preview();
      return;
    }
    if (what === 'photo' && $('fit').value === 'trim') $('fit').value = 'contain';
    if (what === 'drawn' && this.input && pictureOf(this.input).channels === 1) $('fit').value = 'trim';
    this.#preview();
    this.timer = setTimeout(() => this.ask(), SOON_MS); // the answer follows the pen
  }

  ask() {
    clearTimeout(this.timer);
    const seen = this.input ? this.#seen() : null;
    if (!seen) {
      this.app.trouble({ title: 'The size cannot be read', text: $('size').value, todo: 'Width and height as 28x28.' });
      return;
    }
    if (this.pad.isEmpty) {
      this.app.trouble({ title: 'There is nothing to ask about yet', text: '', todo: 'Draw something, or upload an image.' });
      return;
    }
    if (this.app.busy()) {
      this.timer = setTimeout(() => this.ask(), SOON_MS);
      return;
    }
    const whole = /^U?INT|BOOL/.test(this.input.datatype);
    const data = tensorOf(seen.picture, seen.wanted, $('range').value, { invert: $('invert').checked, whole });
    const body = JSON.stringify({ inputs: [{ name: this.input.name, datatype: this.input.datatype, shape: shapeFor(this.input, seen.wanted), data }] });
    this.app.infer(body, (value) => {
      const names = $('classes').value.split('\n').map((s) => s.trim());
      const shown = bars(value.outputs, names);
      const rest = otherOutputs(value.outputs, shown);
      $('guess').replaceChildren(...[shown?.element, ...rest.map((o) => make('p', { className: 'note', textContent: `${o.name} (${o.datatype} ${JSON.stringify(o.shape)}): ${JSON.stringify(o.data).slice(0, 200)}` }))].filter(Boolean));
      say(shown ? `${shown.best}, ${(shown.share * 100).toFixed(0)} per cent` : 'Answered');
    });
  }
}

const SHOWN_MAX = 512; // elements of a list

// JSON with each list of plain values on one line, long ones cut.
function layOut(value, indent = '') {
  const deeper = `${indent}  `;
  const nested = (v) => v !== null && typeof v === 'object';
  if (Array.isArray(value)) {
    const some = value.slice(0, SHOWN_MAX);
    const rest = value.length > some.length ? [`… ${value.length - some.length} more`] : [];
    if (!some.some(nested)) return `[${[...some.map((v) => JSON.stringify(v)), ...rest].join(', ')}]`;
    return `[\n${[...some.map((v) => deeper + layOut(v, deeper)), ...rest.map((t) => deeper + t)].join(',\n')}\n${indent}]`;
  }
  if (!nested(value)) return JSON.stringify(value);
  return `{\n${Object.entries(value).map(([k, v]) => `${deeper}${JSON.stringify(k)}: ${layOut(v, deeper)}`).join(',\n')}\n${indent}}`;
}

export class Tensors {
  constructor(app) {
    Object.assign(this, { app, metadata: null });
    $('template').addEventListener('click', () => this.reset());
    $('infer').addEventListener('click', () => this.ask());
    $('body').addEventListener('keydown', (e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) this.ask(); });
  }

  setModel(metadata) {
    if (this.metadata === metadata) return;
    this.metadata = metadata;
    this.reset();
    $('reply').textContent = '';
    $('outputs').replaceChildren();
  }

  reset() {
    const value = this.metadata ? emptyRequest(this.metadata) : { inputs: [] };
    const texts = value.inputs.map((input) => `    ${JSON.stringify(input)}`);
    $('body').value = `{\n  "inputs": [\n${texts.join(',\n')}\n  ]\n}\n`;
  }

  ask() {
    if (this.app.busy()) return;
    const body = $('body').value;
    try {
      JSON.parse(body);
    } catch (error) {
      this.app.trouble({ title: 'The request is no JSON', text: error.message, todo: 'Mend it, or start again from the metadata.' });
      $('body').focus();
      return;
    }
    this.app.infer(body, (value) => {
      $('outputs').replaceChildren(...[bars(value.outputs, [])?.element].filter(Boolean));
      $('reply').textContent = layOut(value);
      say('Answered');
    });
  }
}

// One request by the protocol, with its facts. Resolves to the answer.
export async function inferAndShow(app, body, signal) {
  const measure = new Measure(now);
  let headers = null;
  try {
    const answer = await app.gateway.infer(app.model(), body, signal);
    headers = answer.headers;
    measure.onEnd();
    measure.server = parseServerTiming(headers.get('server-timing'));
    measure.cost = costOf(answer.value?.usage ?? { prompt_tokens: 0, completion_tokens: 0 }, app.pricing());
    if (!Array.isArray(answer.value?.outputs)) throw new ApiError('The answer has no outputs.', { kind: 'protocol', status: 200 });
    return answer;
  } finally {
    if (measure.end != null) showFacts(measure, headers, { done: true, tokens: false });
  }
}
