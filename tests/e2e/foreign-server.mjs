// A model server that is none of ours and knows nothing of Atoll: OpenAI's protocol and the Open Inference Protocol, on the port
// in PORT. Run by the process driver in serving.test.mjs; says each word of the last message, a chunk a word.
import http from 'node:http';

const json = (res, value) => res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));

http.createServer(async (req, res) => {
  let text = '';
  for await (const piece of req) text += piece;
  const body = text ? JSON.parse(text) : {};
  if (req.url === '/v2/models/echo/infer') return json(res, { model_name: 'echo', outputs: [{ ...body.inputs[0], name: 'y' }] });
  if (req.url !== '/v1/chat/completions') return json(res, { ready: true });
  const words = body.messages.at(-1).content.split(' ');
  const base = { id: 'x', created: 1, model: body.model };
  if (!body.stream) return json(res, { ...base, object: 'chat.completion', choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: words.join(' ') } }] });
  res.writeHead(200, { 'Content-Type': 'text/event-stream' });
  for (const word of words) res.write(`data: ${JSON.stringify({ ...base, object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content: word }, finish_reason: null }] })}\n\n`);
  res.end('data: [DONE]\n\n');
}).listen(Number(process.env.PORT), '127.0.0.1');
