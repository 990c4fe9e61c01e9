// From pictures to tensors and from tensors to words: what a model's metadata asks for. Pure.

const NUMERIC = /^(FP16|FP32|FP64|BF16|U?INT(8|16|32|64)|BOOL)$/;
export const isNumeric = (input) => NUMERIC.test(input?.datatype ?? '');
export const PIXELS_MAX = 4096 * 4096; // of a model's input; more is no picture

const CHANNELS = [1, 3, 4];
const square = (n) => (Number.isInteger(Math.sqrt(n)) ? Math.sqrt(n) : null);

// How a picture goes into this input: {width, height, channels, order, shape, fixed}; null: it is none. Dimensions that the model
// leaves open (-1) are 224, or 1 where they count pictures.
export function pictureOf(input) {
  if (!isNumeric(input) || !Array.isArray(input.shape)) return null;
  const shape = input.shape.map(Number);
  const open = (n) => (n > 0 ? n : 224);
  const of = (width, height, channels, order) => {
    const fine = width >= 2 && height >= 2 && width * height * channels <= PIXELS_MAX;
    return fine ? { width, height, channels, order, shape: null, open: shape.some((n, i) => n <= 0 && (i > 0 || shape.length < 3)) } : null;
  };
  if (shape.length === 4) {
    if (shape[0] > 1) return null;
    if (CHANNELS.includes(shape[1])) return of(open(shape[3]), open(shape[2]), shape[1], 'nchw');
    if (CHANNELS.includes(shape[3])) return of(open(shape[2]), open(shape[1]), shape[3], 'nhwc');
    return null;
  }
  if (shape.length === 3) {
    if (CHANNELS.includes(shape[0]) && shape[1] !== 1) return of(open(shape[2]), open(shape[1]), shape[0], 'nchw');
    if (CHANNELS.includes(shape[2]) && shape[2] !== -1 && shape[1] > 1) return of(open(shape[1]), open(shape[0]), shape[2], 'nhwc');
    if (shape[0] <= 1 && shape[1] > 1 && shape[2] > 1) return of(shape[2], shape[1], 1, 'nchw');
    return null;
  }
  const flat = shape.length === 2 && shape[0] <= 1 ? shape[1] : shape.length === 1 ? shape[0] : 0;
  for (const channels of CHANNELS) {
    const side = flat > 0 && flat % channels === 0 ? square(flat / channels) : null;
    if (side && side >= 4) return of(side, side, channels, 'nchw');
  }
  return null;
}

// The shape to send: the input's own, with its open dimensions filled in.
export function shapeFor(input, picture) {
  const { width, height, channels, order } = picture;
  const shape = input.shape.map(Number);
  const whole = order === 'nchw' ? [channels, height, width] : [height, width, channels];
  if (shape.length === 4) return [1, ...whole];
  if (shape.length === 3) return shape[0] <= 1 && channels === 1 && !CHANNELS.includes(shape[2]) ? [1, height, width] : whole;
  const all = width * height * channels;
  return shape.length === 2 ? [1, all] : [all];
}

// A model's own words on what its pixels are ("pixels 0..16"), else what is usual for such an input.
export function rangeOf(metadata, input, picture) {
  const words = [metadata.description, ...Object.values(metadata.properties ?? {})].filter((t) => typeof t === 'string').join(' ');
  const told = /(-?\d+(?:\.\d+)?)\s*(?:\.\.+|…|–|\bto\b)\s*(-?\d+(?:\.\d+)?)/.exec(words);
  const name = told && { '0 1': 'unit', '0 255': 'byte', '-1 1': 'signed', '0 16': 'sixteen' }[`${Number(told[1])} ${Number(told[2])}`];
  if (name) return name;
  if (/imagenet/i.test(words)) return 'imagenet';
  if (/^U?INT/.test(input.datatype)) return 'byte';
  return picture.channels === 3 && picture.width >= 160 ? 'imagenet' : 'unit';
}

// Names of classes in the model's own metadata: a list, an object or a Python dictionary as exporters write it; null: there are none.
export function classesOf(metadata) {
  for (const [key, text] of Object.entries(metadata.properties ?? {})) {
    if (!/^(names|classes|labels|class_names|id2label)$/i.test(key) || typeof text !== 'string') continue;
    try {
      const value = JSON.parse(text);
      return Array.isArray(value) ? value.map(String) : Object.keys(value).sort((a, b) => a - b).map((k) => String(value[k]));
    } catch {
      const pairs = [...text.matchAll(/(\d+)\s*:\s*(?:'([^']*)'|"([^"]*)")/g)];
      if (pairs.length) return pairs.sort((a, b) => a[1] - b[1]).map((m) => m[2] ?? m[3]);
      if (text.includes(',')) return text.split(',').map((s) => s.trim().replace(/^\[?\s*['"]?|['"]?\s*\]?$/g, ''));
    }
  }
  return null;
}

// Which part of a picture of w by h goes where in one of W by H: {sx, sy, sw, sh, dx, dy, dw, dh}. box: what is drawn, for trim.
export function placeOf(fit, w, h, W, H, box = null) {
  if (fit === 'trim' && box) {
    const scale = Math.min(W / box.w, H / box.h);
    const [dw, dh] = [box.w * scale, box.h * scale];
    return { sx: box.x, sy: box.y, sw: box.w, sh: box.h, dx: (W - dw) / 2, dy: (H - dh) / 2, dw, dh };
  }
  if (fit === 'stretch' || fit === 'trim') return { sx: 0, sy: 0, sw: w, sh: h, dx: 0, dy: 0, dw: W, dh: H };
  const scale = fit === 'cover' ? Math.max(W / w, H / h) : Math.min(W / w, H / h);
  if (fit === 'cover') {
    const [sw, sh] = [W / scale, H / scale];
    return { sx: (w - sw) / 2, sy: (h - sh) / 2, sw, sh, dx: 0, dy: 0, dw: W, dh: H };
  }
  const [dw, dh] = [w * scale, h * scale];
  return { sx: 0, sy: 0, sw: w, sh: h, dx: (W - dw) / 2, dy: (H - dh) / 2, dw, dh };
}

// The smallest box around what differs from the corner's colour; null: nothing does.
export function boxOf({ data, width, height }) {
  let [x0, y0, x1, y1] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 4;
      if (Math.abs(data[at] - data[0]) + Math.abs(data[at + 1] - data[1]) + Math.abs(data[at + 2] - data[2]) > 96) {
        [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
      }
    }
  }
  return x1 < 0 ? null : { x: x0, y: y0, w: x1 - x0 + 1, h: y1 - y0 + 1 };
}

// A picture of W by H out of another, each new pixel the mean of what it covers (or the nearest one, where it covers less than one).
// Outside the place is the source's corner colour.
export function resize(source, W, H, place) {
  const { data, width, height } = source;
  const out = new Uint8ClampedArray(W * H * 4);
  const [kx, ky] = [place.sw / place.dw, place.sh / place.dh];
  const clamp = (n, most) => Math.max(0, Math.min(most - 1, n));
  for (let y = 0; y < H; y++) {
    for (let x = 0; x < W; x++) {
      const [cx0, cx1] = [Math.max(x, place.dx), Math.min(x + 1, place.dx + place.dw)];
      const [cy0, cy1] = [Math.max(y, place.dy), Math.min(y + 1, place.dy + place.dh)];
      const inside = cx1 > cx0 && cy1 > cy0 ? (cx1 - cx0) * (cy1 - cy0) : 0;
      const sum = [0, 0, 0, 0];
      let n = 0;
      if (inside > 0) {
        const [sx0, sx1] = [place.sx + (cx0 - place.dx) * kx, place.sx + (cx1 - place.dx) * kx];
        const [sy0, sy1] = [place.sy + (cy0 - place.dy) * ky, place.sy + (cy1 - place.dy) * ky];
        for (let sy = Math.floor(sy0); sy < Math.max(sy1, Math.floor(sy0) + 1); sy++) {
          for (let sx = Math.floor(sx0); sx < Math.max(sx1, Math.floor(sx0) + 1); sx++) {
            const at = (clamp(sy, height) * width + clamp(sx, width)) * 4;
            for (let c = 0; c < 4; c++) sum[c] += data[at + c];
            n++;
          }
        }
      }
      for (let c = 0; c < 4; c++) out[(y * W + x) * 4 + c] = inside * (n ? sum[c] / n : 0) + (1 - inside) * (data.length ? data[c] : 0);
    }
  }
  return { data: out, width: W, height: H };
}

const MEAN = [0.485, 0.456, 0.406, 0];
const DEVIATION = [0.229, 0.224, 0.225, 1];
const SCALES = {
  unit: (v) => v / 255,
  byte: (v) => v,
  signed: (v) => v / 127.5 - 1,
  sixteen: (v) => (v / 255) * 16,
  imagenet: (v, c) => (v / 255 - MEAN[c]) / DEVIATION[c],
};

// The numbers of a tensor. picture: as of pictureOf; range: a name of SCALES.
export function tensorOf({ data, width, height }, { channels, order }, range, { invert = false, whole = false } = {}) {
  const out = new Array(width * height * channels);
  for (let i = 0; i < width * height; i++) {
    const rgb = [data[i * 4], data[i * 4 + 1], data[i * 4 + 2], data[i * 4 + 3]];
    const colours = channels === 1 ? [0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]] : rgb;
    for (let c = 0; c < channels; c++) {
      const value = SCALES[range](invert && c < 3 ? 255 - colours[c] : colours[c], c);
      out[order === 'nchw' ? c * width * height + i : i * channels + c] = whole ? Math.round(value) : Number(value.toPrecision(6));
    }
  }
  return out;
}

// Netpbm (P2, P3, P5, P6), which browsers do not decode. bytes -> {data (RGBA), width, height}; null: it is none.
export function netpbmOf(bytes) {
  const kind = bytes[0] === 0x50 ? bytes[1] - 0x30 : 0;
  if (![2, 3, 5, 6].includes(kind)) return null;
  const text = (at) => String.fromCharCode(bytes[at]);
  const head = [];
  let at = 2;
  const number = () => {
    for (let comment = false; at < bytes.length && (comment || /[\s#]/.test(text(at))); at++) comment = bytes[at] !== 10 && (comment || text(at) === '#');
    let digits = '';
    for (; at < bytes.length && /\d/.test(text(at)) && digits.length < 9; at++) digits += text(at);
    return digits === '' ? NaN : Number(digits);
  };
  for (let i = 0; i < 3; i++) head.push(number());
  const [width, height, most] = head;
  const channels = kind === 3 || kind === 6 ? 3 : 1;
  if (!(width > 0 && height > 0 && most > 0 && most <= 65535 && width * height <= PIXELS_MAX)) return null;
  const wide = most > 255 ? 2 : 1;
  at += kind > 3 ? 1 : 0;
  const next = kind > 3 ? () => { const v = wide === 2 ? bytes[at] * 256 + bytes[at + 1] : bytes[at]; at += wide; return v; } : number;
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) {
    const colour = Array.from({ length: channels }, next);
    if (colour.some((v) => !(v >= 0))) return null;
    for (let c = 0; c < 3; c++) data[i * 4 + c] = (colour[channels === 3 ? c : 0] / most) * 255;
    data[i * 4 + 3] = 255;
  }
  return { data, width, height };
}

export function softmax(values) {
  const most = Math.max(...values);
  const powers = values.map((v) => Math.exp(v - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}

// The output that tells classes apart: [{index, share}], the likeliest first, and whether it was made so here; null: none does.
export function classesIn(outputs) {
  const candidates = (outputs ?? []).filter((o) => /^(FP|BF)/.test(o?.datatype ?? '') && Array.isArray(o.data)).map((o) => ({ name: o.name, values: o.data.flat(Infinity), rows: o.shape?.length > 1 ? Number(o.shape[0]) : 1 }))
    .filter((o) => o.values.length > 1 && o.values.length <= 100000 && o.rows === 1 && o.values.every(Number.isFinite));
  const sums = (o) => o.values.every((v) => v >= -1e-6 && v <= 1 + 1e-6) && Math.abs(o.values.reduce((a, b) => a + b, 0) - 1) < 0.02;
  const found = candidates.find(sums) ?? candidates.find((o) => /prob|score|logit|class/i.test(o.name)) ?? candidates[0];
  if (!found) return null;
  const made = !sums(found);
  const shares = made ? softmax(found.values) : found.values;
  return { name: found.name, made, list: shares.map((share, index) => ({ index, share, raw: found.values[index] })).sort((a, b) => b.share - a.share) };
}

// A request with zeros, of the smallest shape that the metadata allows.
export function emptyRequest(metadata) {
  const zero = (type) => (type === 'BOOL' ? false : type === 'BYTES' ? '' : 0);
  return {
    inputs: metadata.inputs.map((input) => {
      const shape = input.shape.map((n) => (Number(n) > 0 ? Number(n) : 1));
      const count = Math.min(shape.reduce((a, b) => a * b, 1), 4096);
      return { name: input.name, datatype: input.datatype, shape, data: Array.from({ length: count }, () => zero(input.datatype)) };
    }),
  };
}
