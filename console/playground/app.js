// The playground: chooses a model, asks it in the way that fits, shows what came and what it took.
import { CURL_BODY_MAX, curlOf, Gateway } from './api.js';
import { Talk } from './chat.js';
import { explain } from './explain.js';
import { inferAndShow, Look, pictureInput, Tensors } from './image.js';
import { isNumeric } from './tensor.js';
import { $, copyText, make, prose, say } from './view.js';

const KEY = 'atoll-playground-key'; // in this tab's session storage, nowhere else
const THEME = 'atoll-playground-theme';
const base = new URL('.', document.baseURI);

const store = {
  get: (name) => { try { return sessionStorage.getItem(name) ?? ''; } catch { return ''; } },
  set: (name, value) => { try { if (value) sessionStorage.setItem(name, value); else sessionStorage.removeItem(name); } catch { /* it is kept in the field only */ } },
};

let key = store.get(KEY);
let models = [];
let chosen = null; // {name, ready, pricing, metadata}
let mode = null;
let running = null; // AbortController
let choosing = null;
let last = null; // {request, answer}
let retry = null;

const gateway = new Gateway(base, () => key);

const app = {
  gateway,
  model: () => chosen?.name ?? '',
  pricing: () => chosen?.pricing ?? null,
  busy: () => running != null,
  told(request) {
    last = { request, answer: null };
    $('curl').disabled = false;
    $('copy').disabled = true;
    const large = request.body.length > CURL_BODY_MAX;
    if ($('download').href) URL.revokeObjectURL($('download').href);
    $('download').hidden = !large;
    if (large) $('download').href = URL.createObjectURL(new Blob([request.body], { type: 'application/json' }));
    else $('download').removeAttribute('href');
  },
  // One request at a time; Send becomes Stop. action(signal) resolves to {text} for "Copy answer".
  async run(action, again = null) {
    if (running) return;
    running = new AbortController();
    retry = again;
    trouble(null);
    busy(true);
    try {
      const answer = await action(running.signal);
      if (last) last.answer = answer?.text ?? null;
      $('copy').disabled = last?.answer == null;
    } catch (error) {
      if (error.name !== 'AbortError') fail(error);
    } finally {
      running = null;
      busy(false);
    }
  },
  infer(body, show) {
    const path = `v2/models/${encodeURIComponent(app.model())}/infer`;
    app.told({ path, body, stream: false });
    return app.run(async (signal) => {
      const answer = await inferAndShow(app, body, signal);
      show(answer.value);
      return { text: answer.text };
    }, () => app.infer(body, show));
  },
  trouble,
};

const talk = new Talk(app);
const look = new Look(app);
const tensors = new Tensors(app);

function busy(is) {
  document.body.classList.toggle('busy', is);
  for (const button of document.querySelectorAll('[data-go]')) {
    button.dataset.text ??= button.textContent;
    button.textContent = is ? 'Stop' : button.dataset.text;
    button.classList.toggle('stop', is);
  }
  for (const id of ['model', 'reload', 'fresh', 'again']) $(id).disabled = is || (id === 'again' && talk.turns.length === 0);
  for (const radio of document.getElementsByName('mode')) radio.disabled = is || mode == null || radio.dataset.off === 'true';
}

// Stop is caught before the button's own meaning.
document.addEventListener('click', (e) => {
  if (running && e.target.closest?.('[data-go]')) {
    e.preventDefault();
    e.stopPropagation();
    running.abort();
  }
}, true);
document.addEventListener('keydown', (e) => {
  if (e.key === 'Escape' && running) running.abort();
});

// --- what went wrong ---

// what: {title, text, todo, retry, key, requestId}; null: nothing any more
function trouble(what) {
  const box = $('trouble');
  box.hidden = !what;
  box.replaceChildren();
  if (!what) return;
  const buttons = make('div', { className: 'row' });
  const button = (text, action) => {
    const b = make('button', { type: 'button', className: 'plain', textContent: text });
    b.addEventListener('click', action);
    buttons.append(b);
  };
  if (what.retry) button('Try again', () => { trouble(null); what.retry(); });
  if (what.key) button('Enter a key', () => { $('access').open = true; $('key').focus(); });
  button('Dismiss', () => { trouble(null); $('work').focus({ preventScroll: true }); });
  box.append(...[make('h3', { textContent: what.title }), what.text ? make('p', { className: 'said', textContent: what.text }) : null, what.todo ? make('p', {}, prose(what.todo)) : null,
    what.requestId ? make('p', { className: 'note', textContent: `Request ${what.requestId}` }) : null, buttons].filter(Boolean));
  box.scrollIntoView({ block: 'nearest' });
}

function fail(error) {
  if (error.name !== 'ApiError') { // a mistake of this page: say so rather than nothing
    console.error(error);
    trouble({ title: 'The page made a mistake', text: String(error), todo: 'Load it again. If it recurs, it is a bug of Atoll’s playground.' });
    return;
  }
  const words = explain(error, { model: app.model(), hasKey: key !== '' });
  if (words.key) $('access').open = true;
  const again = retry ?? (mode === 'chat' || mode === 'text' ? () => talk.again() : null);
  trouble({ ...words, retry: words.retry ? again : null, requestId: error.requestId });
}

// --- models ---

function nothing(title, text) {
  mode = null;
  delete document.body.dataset.mode;
  $('settings').hidden = true;
  for (const radio of document.getElementsByName('mode')) Object.assign(radio, { checked: false, disabled: true });
  for (const id of ['talk', 'look', 'tensors']) $(id).hidden = true;
  $('nothing').hidden = false;
  $('nothing-title').textContent = title;
  $('nothing-text').replaceChildren(prose(text));
}

function option(model) {
  return make('option', { value: model.name, textContent: model.ready ? model.name : `${model.name} (no replica is ready)` });
}

function fromHash() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ''; // somebody typed it
  }
}

async function loadModels() {
  choosing?.abort();
  choosing = new AbortController();
  const { signal } = choosing;
  try {
    models = await gateway.models(signal);
  } catch (error) {
    if (error.name === 'AbortError') return;
    models = [];
    chosen = null;
    $('model').replaceChildren(make('option', { value: '', textContent: error.status === 401 ? 'A key is needed' : 'None' }));
    $('about').textContent = '';
    const words = explain(error, { hasKey: key !== '' });
    nothing(words.title, words.todo);
    if (words.key) {
      $('access').open = true;
      if (error.status === 401 && key !== '') trouble({ ...words, retry: null });
      $('key').focus({ preventScroll: true });
    } else {
      trouble({ ...words, retry: loadModels, requestId: error.requestId });
    }
    showKey();
    return;
  }
  trouble(null);
  showKey();
  if (models.length === 0) {
    $('model').replaceChildren(make('option', { value: '', textContent: 'None' }));
    nothing('No models yet', 'Deploy one, such as examples/quickstart, and load the list again.');
    return;
  }
  $('model').replaceChildren(...models.map(option));
  const wanted = fromHash();
  const name = [chosen?.name, wanted, models.find((m) => m.ready)?.name, models[0].name].find((n) => models.some((m) => m.name === n));
  $('model').value = name;
  await choose(name, signal);
}

async function choose(name, signal = (choosing?.abort(), (choosing = new AbortController()).signal)) {
  const model = models.find((m) => m.name === name);
  chosen = { ...model, metadata: null };
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  trouble(null);
  if (!model.ready) {
    $('about').textContent = 'No replica is ready. Asking may start one, which takes a while.';
    offer({ chat: true, text: true, image: false, tensor: true }, 'chat');
    return;
  }
  $('about').textContent = 'Asking what it takes…';
  try {
    const metadata = await gateway.metadata(name, signal);
    if (signal.aborted) return;
    chosen.metadata = metadata;
  } catch (error) {
    if (error.name === 'AbortError') return;
    if (error.status === 401 || error.status === 403) {
      fail(error);
    }
  }
  describe();
}

function describe() {
  const { metadata } = chosen;
  const takesTensors = metadata?.inputs.some(isNumeric) ?? false;
  const picture = takesTensors && metadata.inputs.length === 1 ? pictureInput(metadata) : null;
  const shape = (t) => `${t.name} ${t.datatype} [${t.shape.map((n) => (Number(n) < 0 ? '?' : n)).join(', ')}]`;
  $('about').textContent = [metadata?.description, takesTensors ? metadata.inputs.map(shape).join('; ') : null].filter(Boolean).join(' · ') || 'Speaks OpenAI’s protocol.';
  if (takesTensors) {
    offer({ chat: false, text: false, image: picture != null, tensor: true }, picture ? 'image' : 'tensor');
  } else {
    offer({ chat: true, text: true, image: false, tensor: metadata == null }, 'chat');
  }
}

function offer(possible, best) {
  for (const radio of document.getElementsByName('mode')) {
    radio.dataset.off = String(!possible[radio.value]);
    radio.disabled = !possible[radio.value];
  }
  setMode(possible[mode] && (mode !== 'tensor' || best === 'tensor') ? mode : best);
}

function setMode(wanted) {
  mode = wanted;
  const language = mode === 'chat' || mode === 'text';
  for (const radio of document.getElementsByName('mode')) radio.checked = radio.value === mode;
  document.body.dataset.mode = mode;
  $('nothing').hidden = true;
  $('settings').hidden = false;
  $('talk').hidden = !language;
  $('look').hidden = mode !== 'image';
  $('tensors').hidden = mode !== 'tensor';
  if (language) talk.setKind(mode);
  if (mode === 'image') look.setModel(chosen.metadata);
  if (mode === 'tensor') tensors.setModel(chosen.metadata);
}

// --- the rest of the page ---

function showKey() {
  $('keystate').textContent = key ? 'set' : models.length ? 'not needed' : 'none';
  $('keyforget').disabled = !key;
}

function setKey(value) {
  key = value.trim();
  store.set(KEY, key);
  $('key').value = '';
  $('access').open = false;
  showKey();
  loadModels().then(() => say(models.length ? `${models.length} models` : 'No models'));
}

function theme(value) {
  document.documentElement.dataset.theme = value;
  store.set(THEME, value);
}

for (const [id, out] of [['temperature', 'temperature-out'], ['topp', 'topp-out']]) {
  const show = () => ($(out).value = Number($(id).value).toFixed(2));
  $(id).addEventListener('input', show);
  show();
}
$('model').addEventListener('change', () => choose($('model').value));
$('reload').addEventListener('click', loadModels);
for (const radio of document.getElementsByName('mode')) radio.addEventListener('change', () => setMode(radio.value));
$('keyform').addEventListener('submit', (e) => {
  e.preventDefault();
  const value = $('key').value.trim();
  const odd = /[^\x21-\x7e]/.test(value); // it could not be sent in a header
  $('key').setAttribute('aria-invalid', String(odd));
  if (odd) trouble({ title: 'This cannot be a key', text: '', todo: 'Keys are of letters, digits and signs without blanks. Was it copied whole, and nothing else with it?' });
  else if (value) setKey(value);
});
$('keyforget').addEventListener('click', () => setKey(''));
$('keyshow').addEventListener('click', () => {
  const shown = $('key').type === 'text';
  $('key').type = shown ? 'password' : 'text';
  $('keyshow').setAttribute('aria-pressed', String(!shown));
});
$('theme').addEventListener('click', () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  theme(dark ? 'light' : 'dark');
});
const copied = async (text, what) => {
  try {
    await copyText(text);
    $('copied').textContent = what;
  } catch (error) {
    $('copied').textContent = `Not copied: ${error.message}`;
  }
};
$('curl').addEventListener('click', () => copied(curlOf({ url: gateway.url(last.request.path), body: last.request.body, stream: last.request.stream, withKey: key !== '' }), key ? 'Copied. Put the key into ATOLL_API_KEY first.' : 'Copied.'));
$('copy').addEventListener('click', () => copied(last.answer, 'Copied.'));

if (store.get(THEME)) theme(store.get(THEME));
$('where').textContent = base.host;
if (matchMedia('(max-width: 820px)').matches) $('settings').open = false;
loadModels();
