// Chats of the real AI SDKs, without React: one JSON request per line, one JSON answer per line.
// AbstractChat with DefaultChatTransport is what useChat is made of.
import { createInterface } from "node:readline";

console.warn = console.error = () => {}; // stdout is for answers

const AI = { 5: await import("ai5"), 6: await import("ai6"), 7: await import("ai7") };
const TURNS = 40; // of the event loop that a chat must stay still in before it counts as settled

class State {
  status = "ready";
  error = undefined;
  constructor(messages) { this.messages = messages; }
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (at, message) => {
    this.messages = [...this.messages.slice(0, at), structuredClone(message), ...this.messages.slice(at + 1)];
  };
  snapshot = (value) => structuredClone(value);
}

const chats = {};

// A chat and what happened to it. `tools` are those of the browser: by name, the output that each call gets at once.
// `automatic` are the names of the AI SDK's conditions for sending by itself; `limit` ends an endless exchange.
const open = ({ name, version, api, id, messages = [], tools = {}, automatic = [], limit = 6 }) => {
  const ai = AI[version];
  const kept = { version, ran: [], posts: 0, bodies: [], busy: 0, errors: [], finishes: [], calls: [] };
  const counted = async (address, options) => {
    if (options?.method === "POST" && ++kept.posts > limit) throw new Error("asked without end");
    if (options?.body) kept.bodies.push(JSON.parse(options.body));
    kept.busy++;
    try {
      return await fetch(address, options);
    } finally {
      kept.busy--;
    }
  };
  const conditions = automatic.map((condition) => ai[condition]);
  if (conditions.includes(undefined)) throw new Error(`AI SDK ${version} has not all of ${automatic}`);
  class Chat extends ai.AbstractChat {}
  kept.chat = new Chat({
    id,
    state: new State(messages),
    transport: new ai.DefaultChatTransport({ api, fetch: counted }),
    sendAutomaticallyWhen: conditions.length ? (given) => conditions.some((holds) => holds(given)) : undefined,
    onError: (error) => kept.errors.push(String(error)),
    onFinish: ({ isAbort, isError, isDisconnect }) => kept.finishes.push({ isAbort, isError, isDisconnect }),
    onToolCall: ({ toolCall: { toolName, toolCallId, input } }) => {
      kept.ran.push([toolName, input]);
      if (toolName in tools) output(kept, toolName, toolCallId, tools[toolName]);
    },
  });
  chats[name] = kept;
};

const output = ({ chat, calls }, tool, toolCallId, value) => {
  const give = chat.addToolOutput ?? chat.addToolResult; // the older name
  calls.push(give.call(chat, { tool, toolCallId, output: value }));
};

const still = (kept) => kept.busy === 0 && !["submitted", "streaming"].includes(kept.chat.status);

const until = async (kept, holds, seconds, what) => {
  const deadline = Date.now() + 1000 * seconds;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`not ${what}: ${JSON.stringify(report(kept))}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
};

// Waits until nothing goes on any more and nothing follows from it.
const settle = async (kept, seconds) => {
  await Promise.all(kept.calls);
  for (let turn = 0; turn < TURNS; turn++) {
    if (!still(kept)) turn = 0;
    await until(kept, () => still(kept), seconds, "settled");
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
};

const report = ({ chat, ran, posts, bodies, errors, finishes }) => ({
  status: chat.status,
  error: chat.error === undefined ? null : String(chat.error),
  messages: JSON.parse(JSON.stringify(chat.messages)),
  ran,
  posts,
  bodies,
  errors,
  finishes,
});

const answers = {
  open,
  // Begins to send and does not wait. Without a text: what has happened to the last message.
  send: async ({ name, text }) => {
    const { chat, calls } = chats[name];
    calls.push(chat.sendMessage(text === undefined ? undefined : { text }));
  },
  regenerate: async ({ name, messageId }) => {
    const { chat, calls } = chats[name];
    calls.push(chat.regenerate({ messageId }));
  },
  resume: async ({ name }) => {
    const { chat, calls } = chats[name];
    calls.push(chat.resumeStream());
  },
  approve: async ({ name, id, approved, reason }) => {
    const { chat, calls } = chats[name];
    calls.push(chat.addToolApprovalResponse({ id, approved, reason }));
  },
  output: async ({ name, tool, toolCallId, value }) => output(chats[name], tool, toolCallId, value),
  // The client's own stop: it leaves, and the server goes on.
  leave: async ({ name }) => { await chats[name].chat.stop(); },
  // Waits until the last message has a part with these values.
  reached: async ({ name, part, seconds = 30 }) => {
    const there = (held) => Object.entries(part).every(([key, value]) => held[key] === value);
    await until(chats[name], () => chats[name].chat.lastMessage?.parts.some(there), seconds, "reached");
    return report(chats[name]);
  },
  // Waits until an answer is being read: its first bytes are there.
  streaming: async ({ name, seconds = 30 }) => {
    await until(chats[name], () => chats[name].chat.status === "streaming", seconds, "streaming");
  },
  settled: async ({ name, seconds = 30 }) => {
    await settle(chats[name], seconds);
    return report(chats[name]);
  },
  valid: async ({ version, messages }) => {
    const judged = await AI[version].safeValidateUIMessages({ messages });
    return judged.success ? null : String(judged.error);
  },
  // The tools of assistant-stream's clients: what they run of a response in `format`.
  executed: async ({ format, body, names }) => {
    const aui = await import("assistant-stream");
    const Decoder = { "data-stream": aui.DataStreamDecoder, "assistant-transport": aui.AssistantTransportDecoder }[format];
    const ran = [];
    const tools = Object.fromEntries(names.map((name) => [name, {
      type: "frontend", parameters: { type: "object" }, execute: async (args) => { ran.push([name, args]); return "ok"; },
    }]));
    const stream = new Blob([Buffer.from(body, "base64")]).stream().pipeThrough(new Decoder({ strict: false }))
      .pipeThrough(aui.unstable_toolResultStream(tools, new AbortController().signal, async () => {}))
      .pipeThrough(new aui.AssistantMessageAccumulator());
    let message = null;
    for await (message of stream);
    return { ran, message: message && JSON.parse(JSON.stringify({ ...message, content: undefined })) };
  },
};

const answer = async (line) => {
  const { ask, ...request } = JSON.parse(line);
  try {
    return { value: await answers[ask](request) };
  } catch (error) {
    return { error: String(error?.stack ?? error) };
  }
};

process.on("unhandledRejection", () => {}); // of calls that nobody waits for yet

for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(JSON.stringify(await answer(line)) + "\n");
