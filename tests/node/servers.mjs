// Servers of the real AI SDK: what each worked example of golden57/ai sends, made by `streamText` with the SDK's mock
// model, or by `createUIMessageStream`. Where a version lacks something, its server has not got the example.

const MODELS = { 5: "MockLanguageModelV2", 6: "MockLanguageModelV3", 7: "MockLanguageModelV4" };

// The parts that a provider sends, in the words of the version's provider interface.
const usage = (version, input, output) => version === 5
  ? { inputTokens: input, outputTokens: output, totalTokens: input + output }
  : { inputTokens: { total: input, noCache: input }, outputTokens: { total: output, text: output } };
const finish = (version, reason = "stop") =>
  ({ type: "finish", finishReason: version === 5 ? reason : { unified: reason, raw: reason }, usage: usage(version, 3, 10) });
const text = (id, ...deltas) => [
  { type: "text-start", id }, ...deltas.map((delta) => ({ type: "text-delta", id, delta })), { type: "text-end", id },
];
const call = (toolCallId, toolName, ...deltas) => [
  { type: "tool-input-start", id: toolCallId, toolName },
  ...deltas.map((delta) => ({ type: "tool-input-delta", id: toolCallId, delta })),
  { type: "tool-input-end", id: toolCallId },
  { type: "tool-call", toolCallId, toolName, input: deltas.join("") },
];
const file = (version, type, mediaType, data) =>
  ({ type, mediaType, data: version === 7 ? { type: "data", data } : data });

// Per example: the provider's answers, one per step, and what `streamText` and its response are given.
const examples = {
  text: () => ({ steps: [[...text("1", "Hello", ", wör", "ld! \ud83d", "\udc4b")]] }),
  two_text_blocks: () => ({ steps: [[...text("1", "First", "."), ...text("2", "Secon", "d.")]] }),
  reasoning_text: () => ({
    steps: [[
      { type: "reasoning-start", id: "r", providerMetadata: { mock: { k: 0 } } },
      { type: "reasoning-delta", id: "r", delta: "Let me " },
      { type: "reasoning-delta", id: "r", delta: "think.", providerMetadata: { mock: { k: 1 } } },
      { type: "reasoning-end", id: "r", providerMetadata: { mock: { signature: "sig" } } },
      { type: "text-start", id: "1", providerMetadata: { mock: { k: "t" } } },
      ...text("1", "Answe", "r.").slice(1),
    ]],
    respond: { sendReasoning: true },
  }),
  tool_two_steps: () => ({
    steps: [
      [...text("1", "Check", "ing."), ...call("c1", "weather", '{"city', '":"Par', 'is"}')],
      [...text("1", "It is", " 21.5", ".")],
    ],
    tools: { weather: { execute: async ({ city }) => ({ city, t: 21.5 }) } },
  }),
  tool_preliminary: () => ({
    steps: [[...call("c1", "slow", '{"q":1', "}")], [...text("1", "Found", ".")]],
    tools: {
      slow: {
        execute: async function* () {
          yield { p: 10 };
          yield { p: 60 };
          yield { p: 100, hits: 2 };
        },
      },
    },
  }),
  tool_throws: () => ({
    steps: [[...call("c1", "boom", '{"a":1', "}")], [...text("1", "Sorry", ".")]],
    tools: { boom: { execute: async () => { throw new Error("no such city"); } } },
    respond: { onError: (error) => `Error: ${error.message}` },
  }),
  approval_requested: (version) => version > 5 && ({
    steps: [[...text("1", "May I", "?"), ...call("c1", "rm", '{"path', '":"/x"', "}")]],
    tools: { rm: { needsApproval: true, execute: async () => "gone" } },
  }),
  sources: () => ({
    steps: [[
      ...text("1", "See:"),
      {
        type: "source", sourceType: "url", id: "u1", url: "https://e.com/é", title: "E",
        providerMetadata: { mock: { k: 1 } },
      },
      { type: "source", sourceType: "url", id: "u2", url: "https://f.com" },
      { type: "source", sourceType: "document", id: "d1", mediaType: "application/pdf", title: "Doc", filename: "doc.pdf" },
    ]],
    respond: { sendSources: true },
  }),
  files: (version) => ({
    steps: [[
      ...text("1", "Here:"),
      file(version, "file", "image/png", "iVBORw0KGgo="),
      ...(version === 7 ? [file(version, "reasoning-file", "text/plain", "aGk=")] : []),
    ]],
  }),
  model_error: () => ({
    steps: [[...text("1", "half").slice(0, -1), { type: "error", error: new Error("overloaded") }]],
    reason: "error",
    respond: { onError: (error) => `failed: ${error.message}` },
  }),
  aborted: () => ({
    steps: [[...text("1", "half").slice(0, -1), ...call("c1", "weather", '{"city":"Pa').slice(0, -2)]],
    stops: "stopped by user",
    tools: { weather: { execute: async () => null } },
  }),
  metadata: () => ({
    steps: [[...text("1", "x")]],
    respond: {
      messageMetadata: ({ part }) => {
        if (part.type === "start") return { model: "m", at: 1 };
        if (part.type === "text-end") return { mid: true };
        if (part.type === "finish") return { totalUsage: part.totalUsage, nested: { a: 1 } };
      },
    },
  }),
  data_parts: () => ({
    write: [
      { type: "start", messageId: "m1", messageMetadata: { a: 1 } },
      { type: "data-weather", id: "w", data: { status: "loading" } },
      { type: "data-note", data: "gone", transient: true },
      { type: "data-list", data: [1, null, { x: "é" }] },
      { type: "data-weather", id: "w", data: { status: "ok", t: 1 } },
      ...text("t", "x"),
      { type: "message-metadata", messageMetadata: { b: 2 } },
      { type: "finish", finishReason: "stop", messageMetadata: { c: 3 } },
    ],
  }),
};

// The provider's stream; one that somebody stops says nothing more until it is stopped.
const provided = (parts, signal, stop) => new ReadableStream({
  start(controller) {
    for (const part of parts) controller.enqueue(part);
    if (stop === undefined) controller.close();
    else signal.addEventListener("abort", () => controller.error(new DOMException(stop, "AbortError")));
  },
});

// The response of that version's server: { headers, body }, the body in base64; null where it cannot send this. `id` is
// what streamText takes where it makes an id up.
export const serverResponse = async (version, name, id) => {
  const [ai, mocks] = await Promise.all([import(`ai${version}`), import(`ai${version}/test`)]);
  const example = examples[name]?.(version);
  if (!example) return null;
  const response = example.write
    ? ai.createUIMessageStreamResponse({
      stream: ai.createUIMessageStream({ execute: ({ writer }) => example.write.forEach((frame) => writer.write(frame)) }),
    })
    : answered(version, ai, mocks[MODELS[version]], id, example);
  const body = Buffer.from(await response.arrayBuffer());
  return { headers: Object.fromEntries(response.headers), body: body.toString("base64") };
};

const answered = (version, ai, Model, id, { steps, tools = {}, reason, stops, respond = {} }) => {
  const left = [...steps];
  const stopped = new AbortController();
  const model = new Model({
    doStream: async ({ abortSignal }) => {
      const parts = left.shift();
      const last = reason ?? (parts.some((part) => part.type === "tool-call") ? "tool-calls" : "stop");
      const all = [{ type: "stream-start", warnings: [] }, ...parts, ...(stops ? [] : [finish(version, last)])];
      return { stream: provided(all, abortSignal, stops) };
    },
  });
  const inputSchema = ai.jsonSchema({ type: "object" });
  const result = ai.streamText({
    model, prompt: "go", stopWhen: ai.stepCountIs(5), abortSignal: stopped.signal, onError: () => {}, maxRetries: 0,
    _internal: { generateId: () => id },
    tools: Object.fromEntries(Object.entries(tools).map(([tool, given]) => [tool, ai.tool({ inputSchema, ...given })])),
    onChunk: ({ chunk }) => {
      if (stops && chunk.type === "tool-input-delta") stopped.abort(stops);
    },
  });
  return result.toUIMessageStreamResponse({ generateMessageId: () => "msg_server", ...respond });
};
