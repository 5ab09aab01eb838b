// The official OpenAI client for Node as a caller of the gateway: a mix of requests, each awaited, their usage summed.
// Usage: node calls.mjs BASE_URL API_KEY COUNT. Prints one JSON object: {requests, input, output, cost}.
import OpenAI from 'openai';

const [base, apiKey, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const client = new OpenAI({ baseURL: base, apiKey, maxRetries: 0 });
const sum = { requests: 0, input: 0, output: 0, cost: 0n };

// A cost is an exact decimal: it is added up in units of 10^-15.
function femto(text) {
  const [whole, frac = ''] = text.split('.');
  return BigInt(whole + frac.padEnd(15, '0'));
}

function add(usage) {
  if (!usage || typeof usage.cost !== 'string') throw new Error('an answer has no usage with a cost: ' + JSON.stringify(usage));
  sum.requests++;
  sum.input += usage.prompt_tokens;
  sum.output += usage.completion_tokens ?? 0;
  sum.cost += femto(usage.cost);
}

const say = (i) => [{ role: 'user', content: `Node says ${i}: a tally stick is split in two.` }];
const kinds = [
  async (i) => add((await client.chat.completions.create({ model: 'tiny', messages: say(i), max_tokens: 24 })).usage),
  async (i) => {
    const stream = await client.chat.completions.create({ model: 'tiny', messages: say(i), max_completion_tokens: 24, stream: true, stream_options: { include_usage: true } });
    let usage, finish;
    for await (const chunk of stream) {
      usage = chunk.usage ?? usage;
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    if (!finish) throw new Error('a stream ended without a finish reason');
    add(usage);
  },
  async (i) => {
    const answer = await client.chat.completions.create({ model: 'tiny', messages: say(i), max_tokens: 12, n: 3 });
    if (answer.choices.length !== 3) throw new Error('n = 3 brought ' + answer.choices.length + ' choices');
    add(answer.usage);
  },
  async (i) => add((await client.chat.completions.create({ model: 'think', messages: say(i), max_tokens: 40 })).usage),
  async (i) => {
    const answer = await client.embeddings.create({ model: 'embed', input: [`one ${i}`, 'two'] });
    if (answer.data.length !== 2 || !(answer.data[0].embedding.length > 0)) throw new Error('embeddings are missing');
    add(answer.usage);
  },
];
for (let i = 0; i < count; i++) await kinds[i % kinds.length](i);
console.log(JSON.stringify({ ...sum, cost: sum.cost.toString() }));
