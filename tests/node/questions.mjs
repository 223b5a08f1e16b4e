// Each line of stdin says in JSON what to ask: {key, model, what}. For each, a line of stdout says what came of it.

import { createInterface } from "node:readline";

export async function answerAll(answer, factsOfError) {
  for await (const line of createInterface({ input: process.stdin })) {
    const found = await answer(JSON.parse(line)).catch((error) => ({ message: error.message, ...factsOfError(error) }));
    console.log(JSON.stringify(found));
  }
}
