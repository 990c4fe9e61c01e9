// What went wrong, and what to do about it, in words.

const seconds = (ms) => (ms < 950 ? 'a moment' : `${Math.ceil(ms / 1000)} s`);

// error: an ApiError. Returns {title, text, todo, retry, key}: retry when the same may go well later, key when a key is what it wants.
export function explain(error, { model = '', hasKey = false } = {}) {
  const wait = error.retryAfterMs != null ? ` Try again in ${seconds(error.retryAfterMs)}.` : ' Try again in a moment.';
  const say = (title, todo, more = {}) => ({ title, text: error.message, todo, retry: false, key: false, ...more });
  if (error.kind === 'network') {
    return say('No connection to the gateway', 'Is it running, and is this the right address? A proxy or VPN between may have cut it. What was typed is still here.', { retry: true });
  }
  if (error.kind === 'cut') {
    return say('The answer broke off', 'What had come is kept above. A replica that ends in the middle of an answer is started again: ask again. If it recurs, `atoll describe deployment` tells why it ends.', { retry: true });
  }
  if (error.kind === 'protocol') {
    return say('The answer cannot be read', 'The server behind this model does not speak the protocol that was asked. Choose another way under “Ask by”.');
  }
  switch (error.status) {
    case 401:
      return say(hasKey ? 'The key is not accepted' : 'A key is needed', hasKey
        ? 'It may be mistyped, expired or revoked. Enter another one under “API key”.'
        : 'Enter one under “API key”. `atoll dev` prints the file that holds its key; elsewhere ask whoever runs the gateway.', { key: true });
    case 402:
      return say('The budget is spent', 'Whoever gave out this key can raise its budget; or wait until the budget begins anew.');
    case 403:
      return say('The key may not do this', `It has no right to ${model || 'this model'}. Choose another model, or use a key that covers it.`, { key: true });
    case 404:
      return say('There is no such model or path', 'It may have been removed or renamed: load the list of models again. A model that has no chats may have text completions, or tensors: see “Ask by”.');
    case 408:
    case 504:
      return say('It took too long', 'The model may be overloaded or the answer too long: ask for fewer tokens, or try again.', { retry: true });
    case 413:
      return say('The request is too large', 'Use a smaller image or a shorter text.');
    case 429:
      if (error.code === 'insufficient_quota') return say('The budget is spent', 'Whoever gave out this key can raise its budget; or wait until the budget begins anew. `atoll usage` shows what was spent on what.');
      return say('Too much at once', `A limit of this key or of the gateway is reached.${wait}`, { retry: true });
    case 500:
      return say('The model failed', 'The server of the model met a fault of its own. Its log says more: `atoll logs`. Other requests may work.', { retry: true });
    case 502:
      return say('The replica broke off', 'It may be starting again. Try again; `atoll describe deployment` tells why a replica ends.', { retry: true });
    case 503:
      return say('No replica is ready', `It may be starting, asleep or full.${wait} \`atoll get instances\` shows where it stands.`, { retry: true });
    default:
  }
  if (error.code === 'context_length_exceeded') {
    return say('The conversation is too long for this model', 'Begin a new chat, shorten the text, or ask for fewer tokens.');
  }
  if (error.status === 400 || error.status === 422 || error.status === 415) {
    const where = error.param ? ` The part that is meant: ${error.param}.` : '';
    return say('The request was refused', `Change what the message names.${where}`);
  }
  return say(`The gateway answered ${error.status}`, 'Try again; the request id below finds it in the logs.', { retry: error.status >= 500 });
}
