// Calls the JavaScript client as it is told: node caller.mjs BASE TIMEOUT_MS, and a line of JSON for each turn.
// {call, prompt, times} calls at the same time; {normalise: [...]} compares. With abort, the first is called off.

import { createInterface } from 'node:readline';
import { Answers, normalise } from '../../clients/web/lexora-answers.js';

const [base, timeout] = process.argv.slice(2);
const answers = new Answers(base, { timeout: Number(timeout) });

async function turn({ call, prompt, times, abort }) {
  const controller = new AbortController();
  const calls = Array.from({ length: times }, (_, k) =>
    answers[call](prompt, abort && !k ? { signal: controller.signal } : {}),
  );
  if (abort) controller.abort(new Error('called off'));
  const ended = await Promise.allSettled(calls);
  return ended.map((it) => (it.status == 'fulfilled' ? { value: it.value } : { error: it.reason.message }));
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  console.log(JSON.stringify(asked.normalise ? asked.normalise.map(normalise) : await turn(asked)));
}
