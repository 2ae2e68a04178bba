// node driver.mjs [PACKAGE]: answers questions about the JavaScript implementations, one JSON request per line, one
// JSON answer per line. PACKAGE is the assistant-stream that is asked, by the name it is installed under.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { schemaOf } from "./schema.mjs";
import { serverResponse } from "./servers.mjs";

const installed = process.argv[2] ?? "assistant-stream";
const aui = await import(installed);
const { parsePartialJsonObject } = await import(`${installed}/utils`);

const encoders = {
  "data-stream": aui.DataStreamEncoder,
  "assistant-transport": aui.AssistantTransportEncoder,
  "plain-text": aui.PlainTextEncoder,
};
const decoders = {
  "data-stream": aui.DataStreamDecoder,
  "assistant-transport": aui.AssistantTransportDecoder,
  "plain-text": aui.PlainTextDecoder,
  "ui-message-stream": aui.UIMessageStreamDecoder,
};

const older = createRequire(new URL("./older/package.json", import.meta.url));
// The AI SDK of a main version (7), or an older one by its whole number ("7.0.0").
const sdk = (version) => import(String(version).includes(".") ? older.resolve(`ai${version}`) : `ai${version}`);

const quiet = () => {};
console.warn = quiet; // dropped frames are reported there; stdout is for answers
console.error = quiet;

const streamOf = (items) =>
  new ReadableStream({
    start(controller) {
      for (const item of items) controller.enqueue(item);
      controller.close();
    },
  });

const pieces = (base64, size) => {
  const bytes = Uint8Array.from(Buffer.from(base64, "base64"));
  const cut = [];
  for (let at = 0; at < bytes.length; at += size || bytes.length)
    cut.push(bytes.slice(at, at + (size || bytes.length)));
  return cut;
};

const collect = async (stream) => {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
};

// What differs between two runs, and the alias that would hold all parts twice, is left out.
const comparable = (message) => {
  const { content, ...rest } = message;
  const { timing, ...metadata } = message.metadata;
  const parts = message.parts.map(({ timing: _, ...part }) => part);
  return { ...rest, parts, metadata };
};

const accumulated = async (stream) =>
  (await collect(stream.pipeThrough(new aui.AssistantMessageAccumulator()))).map(comparable);

const initial = {
  role: "assistant",
  status: { type: "complete", reason: "unknown" },
  parts: [],
  metadata: { unstable_state: null, unstable_data: [], unstable_annotations: [], steps: [], custom: {} },
};

const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

const reasoningOptions = (given) => (typeof given === "string" ? { unstable_summary: given } : given);

const perform = (root, handles, [name, ...args]) => {
  let controller = root;
  if (name.startsWith("@")) {
    controller = root.withParentId(name.slice(1));
    [name, ...args] = args;
  }
  const handle = handles[args[0]];
  const camel = name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  switch (name) {
    case "throw": throw new Error(args[0]);
    case "add_tool_call_part": handles[args[0]] = controller.addToolCallPart(args[1]); return;
    case "add_text_part": handles[args[0]] = controller.addTextPart(args[1]); return;
    case "add_reasoning_part": handles[args[0]] = controller.addReasoningPart(reasoningOptions(args[1])); return;
    case "append_reasoning": controller.appendReasoning(args[0], reasoningOptions(args[1])); return;
    case "append_source": controller.appendSource({ type: "source", ...args[0] }); return;
    case "append_file": controller.appendFile({ type: "file", ...args[0] }); return;
    case "append_data": controller.appendData({ type: "data", ...args[0] }); return;
    case "tool.args_append": handle.argsText.append(args[1]); return;
    case "tool.args_close": handle.argsText.close(); return;
    case "tool.set_response": handle.setResponse(args[1]); return;
    case "tool.set_approval": handle.setApproval(args[1]); return;
    case "part.append": handle.append(...args.slice(1)); return;
    case "tool.close": handle.close(); return;
    case "part.close": handle.close(...args.slice(1)); return;
    default: controller[camel](...args);
  }
};

// Each operation has the time to come out before the next one, for operations of one tick are reordered.
const run = (program) =>
  aui.createAssistantStream(async (controller) => {
    const handles = {};
    for (const operation of program) {
      if (operation[0] === "merge") controller.merge(run(operation[1]));
      else perform(controller, handles, operation);
      for (let turn = 0; turn < (operation[0] === "merge" ? 4 * operation[1].length + 4 : 2); turn++) await tick();
    }
  });

const uiMessage = async (version, base64, size) => {
  const ai = await sdk(version);
  const transport = new ai.DefaultChatTransport({
    api: "http://localhost/chat",
    fetch: async () => new Response(streamOf(pieces(base64, size)), {
      headers: { "content-type": "text/event-stream" },
    }),
  });
  const stream = await transport.sendMessages({
    chatId: "c", messages: [], trigger: "submit-message", messageId: undefined, abortSignal: undefined,
  });
  const errors = [];
  let last;
  for await (const message of ai.readUIMessageStream({ stream, onError: (error) => errors.push(String(error)) }))
    last = JSON.stringify(message);
  return { message: last === undefined ? null : JSON.parse(last), errors };
};

// What a decoder makes of the bytes: the chunks, the last message, and why it gave up, or null.
const reading = async (format, bytes, options) => {
  const chunks = [];
  let error = null;
  try {
    for await (const chunk of streamOf([bytes]).pipeThrough(new decoders[format](options))) chunks.push(chunk);
  } catch (raised) {
    error = String(raised.message);
  }
  return { chunks, message: (await accumulated(streamOf(chunks))).at(-1) ?? initial, error };
};

const text = (bytes) => Buffer.from(bytes, "base64").toString("utf-8");

const readByAi = async (bytes) => {
  const { message, errors } = await uiMessage(7, bytes.toString("base64"));
  return errors.length ? { message, on_error: errors.map((told) => told.split("\n")[0]) } : { message };
};

// The id that the server of a worked example has made up, if any: given again, it says the same.
const madeUp = (body) => /aitxt-\w+/.exec(body)?.[0] ?? "id";

// The worked examples, made anew.
const golden = {
  // The UI format has no encoder here: its bytes are given, and only read.
  controller: async ({ ops, encoders: given }) => {
    const chunks = await collect(run(ops));
    const made = { chunks, encoders: {}, messages: { chunks: (await accumulated(streamOf(chunks))).at(-1) ?? initial } };
    for (const format of Object.keys(decoders)) {
      const body = format in encoders ? await answers.encode({ format, chunks }) : null;
      if (body) made.encoders[format] = { headers: body.headers, body: text(body.body) };
      const bytes = body ? Buffer.from(body.body, "base64") : Buffer.from(given[format].body, "utf-8");
      made.messages[format] = (await reading(format, bytes)).message;
    }
    const body = Buffer.from(given["ui-message-stream"].body, "utf-8").toString("base64");
    for (const version of [5, 6, 7]) made.messages[`ai-sdk-${version}`] = (await uiMessage(version, body)).message;
    return made;
  },
  decode: async ({ format, body }) => {
    const bytes = Buffer.from(body, "utf-8");
    const made = {};
    for (const [mode, strict] of [["strict", true], ["lenient", false]]) made[mode] = await reading(format, bytes, { strict });
    if (format === "ui-message-stream") made["ai-sdk-7"] = await readByAi(bytes);
    return made;
  },
  // A response that a server of the AI SDK sends, and what the readers make of it.
  ai: async ({ name, body }) => {
    const made = await serverResponse(7, name, madeUp(body));
    const bytes = Buffer.from(made.body, "base64");
    const { message } = await reading("ui-message-stream", bytes);
    const frames = bytes.toString("utf-8").split("\n\n").filter((event) => event.startsWith("data: {"));
    return {
      headers: made.headers, chunks: frames.map((event) => JSON.parse(event.slice("data: ".length))),
      "ai-sdk-7": await readByAi(bytes), "assistant-stream": { message },
    };
  },
};

const answers = {
  golden: async ({ kind, example }) => golden[kind](example),
  encode: async ({ format, chunks }) => {
    const encoder = new encoders[format]();
    const bytes = await collect(streamOf(chunks).pipeThrough(encoder));
    return { headers: Object.fromEntries(encoder.headers), body: Buffer.concat(bytes).toString("base64") };
  },
  accumulate: async ({ chunks }) => accumulated(streamOf(chunks)),
  decode: async ({ format, body, size, options }) => {
    const decoder = new decoders[format](options);
    return (await accumulated(streamOf(pieces(body, size)).pipeThrough(decoder))).at(-1) ?? initial;
  },
  aiWrite: async ({ version, chunks }) => {
    const ai = await sdk(version);
    const response = ai.createUIMessageStreamResponse({ stream: streamOf(chunks) });
    return Buffer.from(await response.arrayBuffer()).toString("base64");
  },
  ai: async ({ version, body, size }) => uiMessage(version, body, size),
  server: async ({ version, name }) => serverResponse(version, name, "made-up"),
  schema: async ({ version }) => schemaOf(await sdk(version)),
  accepts: async ({ version, frame }) => {
    const { uiMessageChunkSchema } = await sdk(version);
    return (await uiMessageChunkSchema().validate(frame)).success;
  },
  partial: async ({ texts }) => texts.map((text) => parsePartialJsonObject(text) ?? null),
  program: async ({ program }) => collect(run(program)),
};

const answer = async (line) => {
  const { ask, ...request } = JSON.parse(line);
  try {
    return { value: await answers[ask](request) };
  } catch (error) {
    return { error: String(error) };
  }
};

for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(JSON.stringify(await answer(line)) + "\n");
