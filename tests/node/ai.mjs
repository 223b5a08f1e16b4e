// The AI SDK: node ai.mjs BASE_URL chat|responses.

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

import { answerAll } from "./questions.mjs";

const [baseURL, api] = process.argv.slice(2);
const Sky = z.object({ sky: z.enum(["clear", "grey"]) });

const facts = ({ text, usage }) => ({ text, usage: [usage.inputTokens, usage.outputTokens] });

function toolbox() {
  const cities = [];
  const execute = ({ city }) => {
    cities.push(city);
    return "7 °C";
  };
  const get_weather = tool({ inputSchema: z.object({ city: z.string() }), execute });
  return { cities, fields: { tools: { get_weather }, stopWhen: isStepCount(3) } };
}

async function streamed(asked) {
  const result = streamText({ ...asked, onError() {} });
  let [text, pieces] = ["", 0];
  for await (const part of result.stream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") [text, pieces] = [text + part.text, pieces + 1];
  }
  return { ...facts({ text, usage: await result.usage }), pieces };
}

const scenes = {
  plain: async (asked) => facts(await generateText(asked)),

  streamed,

  async tools(asked) {
    const { cities, fields } = toolbox();
    const { text } = await generateText({ ...asked, ...fields });
    return { text, cities };
  },

  async streamed_tools(asked) {
    const { cities, fields } = toolbox();
    const { text } = await streamed({ ...asked, ...fields });
    return { text, cities };
  },

  async structured(asked) {
    return { value: (await generateText({ ...asked, output: Output.object({ schema: Sky }) })).output };
  },
};

await answerAll(
  ({ key, model, what }) => {
    const openai = createOpenAI({ baseURL, apiKey: key });
    return scenes[what]({ model: openai[api](model), prompt: "Hello", maxRetries: 0 });
  },
  ({ name, statusCode, data }) => ({ error: name, status: statusCode, code: data?.error?.code }),
);
