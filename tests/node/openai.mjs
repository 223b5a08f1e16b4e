// OpenAI's SDK for Node: node openai.mjs BASE_URL chat|responses.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { answerAll } from "./questions.mjs";

const [baseURL, api] = process.argv.slice(2);

const prompt = "Hello";
const messages = [{ role: "user", content: prompt }];
const Sky = z.object({ sky: z.enum(["clear", "grey"]) });
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

const ofChat = (completion) => ({
  text: completion.choices[0].message.content,
  usage: [completion.usage.prompt_tokens, completion.usage.completion_tokens],
});
const ofResponse = (response) => ({
  text: response.output_text,
  usage: [response.usage.input_tokens, response.usage.output_tokens],
});

const chat = {
  plain: async (client, model) => ofChat(await client.chat.completions.create({ model, messages })),

  async streamed(client, model) {
    const stream = client.chat.completions.stream({ model, messages, stream_options: { include_usage: true } });
    let pieces = 0;
    stream.on("content", () => (pieces += 1));
    return { ...ofChat(await stream.finalChatCompletion()), pieces };
  },

  async tools(client, model, stream = false) {
    const cities = [];
    const get_weather = ({ city }) => {
      cities.push(city);
      return "7 °C";
    };
    const called = { name: "get_weather", parameters, parse: JSON.parse, function: get_weather };
    const tools = [{ type: "function", function: called }];
    const runner = client.chat.completions.runTools({ model, messages, tools, stream });
    return { text: await runner.finalContent(), cities };
  },

  async structured(client, model) {
    const response_format = zodResponseFormat(Sky, "sky");
    const completion = await client.chat.completions.parse({ model, messages, response_format });
    return { value: completion.choices[0].message.parsed };
  },
};

const responses = {
  plain: async (client, model) => ofResponse(await client.responses.create({ model, input: prompt })),

  async streamed(client, model) {
    const stream = client.responses.stream({ model, input: prompt });
    let pieces = 0;
    stream.on("response.output_text.delta", () => (pieces += 1));
    return { ...ofResponse(await stream.finalResponse()), pieces };
  },

  async tools(client, model, streamed = false) {
    const tools = [{ type: "function", name: "get_weather", parameters, strict: true }];
    const ask = (fields) => {
      const asked = { model, tools, ...fields };
      return streamed ? client.responses.stream(asked).finalResponse() : client.responses.create(asked);
    };
    const asking = await ask({ input: prompt });
    const calls = asking.output.filter((item) => item.type === "function_call");
    const input = calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "7 °C" }));
    const { output_text } = await ask({ input, previous_response_id: asking.id });
    return { text: output_text, cities: calls.map((call) => JSON.parse(call.arguments).city) };
  },

  async structured(client, model) {
    const text = { format: zodTextFormat(Sky, "sky") };
    return { value: (await client.responses.parse({ model, input: prompt, text })).output_parsed };
  },
};

const scenes = { chat, responses }[api];
scenes.streamed_tools = (client, model) => scenes.tools(client, model, true);

await answerAll(
  ({ key, model, what }) => scenes[what](new OpenAI({ baseURL, apiKey: key, maxRetries: 0 }), model),
  ({ constructor, status, code }) => ({ error: constructor.name, status, code }),
);
