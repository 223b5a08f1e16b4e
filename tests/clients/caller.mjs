// Calls the JavaScript client as it is told, a line of JSON for each turn: {base, timeout} makes a new one,
// {call, prompt, times} calls it so often at once (with abort, the first call is called off), {normalise: [...]}.

import { createInterface } from 'node:readline';
import { Answers, normalise } from '../../clients/web/lexora-answers.js';

let answers;

async function turn({ normalise: prompts, base, timeout, call, prompt, times, abort }) {
  if (prompts) return prompts.map(normalise);
  if (base) {
    answers = new Answers(base, { timeout });
    return null;
  }
  const controller = new AbortController();
  const calls = Array.from({ length: times }, (_, k) =>
    answers[call](prompt, abort && !k ? { signal: controller.signal } : {}),
  );
  if (abort) controller.abort(new Error('called off'));
  const ended = await Promise.allSettled(calls);
  return ended.map((it) => (it.status == 'fulfilled' ? { value: it.value } : { error: it.reason.message }));
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await turn(JSON.parse(line))));
}
