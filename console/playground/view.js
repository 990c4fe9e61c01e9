// The page's elements, and the facts of the last answer.
import { money, ms, quantile } from './measure.js';

export const $ = (id) => document.getElementById(id);

// make('p', {className: 'x', textContent: y}, child...)
export function make(name, props = {}, ...children) {
  const element = Object.assign(document.createElement(name), props);
  element.append(...children.filter((c) => c != null));
  return element;
}

// For those who do not see the page change.
export function say(text) {
  $('voice').textContent = '';
  requestAnimationFrame(() => ($('voice').textContent = text));
}

const FENCE = /```([\w+-]*)[^\S\n]*\n?([\s\S]*?)(?:```|$)/g;

// Text with its code set apart; nothing in it becomes markup of ours.
export function prose(text) {
  const out = document.createDocumentFragment();
  const plain = (part) => {
    for (const piece of part.split(/(`[^`\n]+`)/)) {
      if (/^`[^`\n]+`$/.test(piece)) out.append(make('code', { textContent: piece.slice(1, -1) }));
      else if (piece) out.append(piece);
    }
  };
  let at = 0;
  for (const found of text.matchAll(FENCE)) {
    plain(text.slice(at, found.index).replace(/\n$/, ''));
    out.append(make('pre', { tabIndex: 0 }, make('code', { textContent: found[2].replace(/\n$/, '') })));
    at = found.index + found[0].length;
  }
  plain(text.slice(at).replace(at ? /^\n/ : /^$/, ''));
  return out;
}

const pair = (term, value, title) => make('div', { title: title ?? '' }, make('dt', { textContent: term }), make('dd', { textContent: value }));

function showStages(measure) {
  const stages = measure.stages();
  const all = stages.reduce((sum, s) => sum + s.ms, 0) || 1;
  $('stages').replaceChildren(...stages.map((s) => {
    const bar = make('i', { className: `stage-${s.name.toLowerCase()}`, title: `${s.name}: ${ms(s.ms)}` });
    bar.style.flexGrow = Math.max(s.ms / all, 0.004);
    return bar;
  }));
  $('legend').tBodies[0].replaceChildren(...[...stages, { name: 'Total', ms: measure.total, what: 'as this page saw it' }].map((s) => make('tr', { className: s.name === 'Total' ? 'sum' : '', title: s.what },
    make('th', { scope: 'row' }, make('i', { className: `stage-${s.name.toLowerCase()}` }), s.name, make('span', { className: 'hidden', textContent: `, ${s.what}` })), make('td', { textContent: ms(s.ms) }))));
}

function showGaps(measure) {
  const { gaps } = measure;
  $('gaps').hidden = gaps.length < 3;
  if (gaps.length < 3) return;
  const groups = Math.min(60, gaps.length);
  const heights = Array.from({ length: groups }, (_, i) => Math.max(...gaps.slice(Math.floor((i * gaps.length) / groups), Math.max(Math.floor(((i + 1) * gaps.length) / groups), Math.floor((i * gaps.length) / groups) + 1))));
  const most = Math.max(...heights) || 1;
  const svg = $('gaps').firstElementChild;
  svg.replaceChildren(...heights.map((h, i) => {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    const height = Math.max(1, (h / most) * 34);
    for (const [name, value] of Object.entries({ x: (i * 240) / groups, y: 36 - height, width: Math.max(1, 240 / groups - 1), height })) bar.setAttribute(name, value);
    return bar;
  }));
  $('gapsnote').textContent = `Between tokens: ${ms(quantile(gaps, 0.5))} (p50), ${ms(quantile(gaps, 0.95))} (p95), ${ms(Math.max(...gaps))} at most`;
}

let spent = 0;

// measure may still be under way: done tells. headers: of the answer; null: there is none yet.
export function showFacts(measure, headers, { done = false, tokens = true } = {}) {
  const usage = measure.usage;
  const rate = measure.rate;
  $('facts').classList.toggle('live', !done);
  $('big').replaceChildren(...(tokens ? [
    pair('tokens/s', rate == null ? '–' : rate >= 100 ? String(Math.round(rate)) : rate.toFixed(1), 'While the answer came'),
    pair('first token', ms(measure.toFirst), 'From the request to the first token'),
    pair('total', ms(measure.total)),
  ] : [pair('total', ms(measure.total), 'From the request to the whole answer'), pair('compute', ms(measure.server.find((s) => s.name === 'compute')?.ms), 'In the model')]));
  showStages(measure);
  showGaps(measure);
  const rows = [];
  if (tokens) {
    const cached = usage?.prompt_tokens_details?.cached_tokens;
    rows.push(pair('Prompt', usage ? `${usage.prompt_tokens} tokens${cached ? `, ${cached} from the cache` : ''}` : '–'));
    rows.push(pair('Answer', measure.answerTokens == null ? '–' : `${measure.answerTokens} tokens${usage ? '' : ' (pieces)'}`));
  }
  if (done && measure.cost != null) spent += measure.cost;
  rows.push(pair('Cost', measure.cost == null ? 'no prices are known' : money(measure.cost), 'From the tokens used and the model’s prices'));
  if (spent > 0) rows.push(pair('In this tab', money(spent)));
  if (headers) {
    for (const [name, header] of [['Replica', 'x-atoll-instance'], ['Site', 'x-atoll-site'], ['Cache', 'x-atoll-cache'], ['Request', 'x-request-id']]) {
      if (headers.get(header)) rows.push(pair(name, headers.get(header)));
    }
    const left = ['requests', 'tokens'].map((what) => [headers.get(`x-ratelimit-remaining-${what}`), what]).filter(([n]) => n != null).map(([n, what]) => `${n} ${what}`);
    if (left.length) rows.push(pair('Left now', left.join(', '), 'Of the key’s limits per minute'));
  }
  $('small').replaceChildren(...rows);
}

// Copy, also where the page has no right to the clipboard (plain HTTP on another machine).
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make('textarea', { value: text, className: 'hidden' });
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    if (!done) throw new Error('the browser did not allow it');
  }
}
