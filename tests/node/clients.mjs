// Plays the front ends over HTTP: one JSON request per line, one JSON answer per line.
import { createInterface } from "node:readline";

console.warn = console.error = () => {}; // stdout is for answers

// What AssistantChatTransport's storage looks for in a browser.
const items = new Map();
globalThis.window = {
  sessionStorage: {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => items.set(key, String(value)),
    removeItem: (key) => items.delete(key),
  },
};

const assistantUi = await import("@assistant-ui/ai-sdk");
const assistantStream = await import("assistant-stream");
const AI = { 5: await import("ai5"), 6: await import("ai6"), 7: await import("ai7") };

const transports = {};
const runs = {};

// Keeps the last message, the errors told and how the reading ended.
const follow = (ai, stream) => {
  const run = { message: null, errors: [], ending: null };
  run.done = (async () => {
    try {
      const onError = (error) => run.errors.push(String(error));
      for await (const message of ai.readUIMessageStream({ stream, onError })) run.message = structuredClone(message);
      run.ending = "end";
    } catch (error) {
      run.ending = String(error);
    }
  })();
  return run;
};

const report = ({ message, errors, ending }) => ({ message, errors, ending });

const userMessage = (text) => ({ id: "user-1", role: "user", parts: [{ type: "text", text }] });

const answers = {
  // A transport of the AI SDK `version`, or of assistant-ui, which resumes by stream id.
  open: async ({ name, version, api, resumeApi, key }) => {
    const storage = resumeApi && assistantUi.createResumableSessionStorage({ key });
    const transport = resumeApi
      ? new assistantUi.AssistantChatTransport({ api, resumable: { storage, resumeApi: (id) => `${resumeApi}/${id}` } })
      : new AI[version].DefaultChatTransport({ api });
    transports[name] = { ai: AI[version ?? 7], transport, storage };
  },
  // Sends a message; answers when the response has begun. The reading goes on.
  send: async ({ name, run, chatId, text }) => {
    const { ai, transport } = transports[name];
    const stream = await transport.sendMessages({
      chatId, messages: [userMessage(text)], trigger: "submit-message", messageId: undefined, abortSignal: undefined,
    });
    runs[run] = follow(ai, stream);
  },
  // Resumes; answers whether there is something, when the response has begun.
  resume: async ({ name, run, chatId }) => {
    const { ai, transport } = transports[name];
    const stream = await transport.reconnectToStream({ chatId });
    if (stream === null) return false;
    runs[run] = follow(ai, stream);
    return true;
  },
  // Waits until a run's message has a tool call with its input.
  reached: async ({ run, seconds }) => {
    const deadline = Date.now() + 1000 * seconds;
    const there = (part) => part.type.startsWith("tool-") && part.state !== "input-streaming";
    while (!runs[run].message?.parts.some(there)) {
      if (Date.now() > deadline || runs[run].ending !== null) throw new Error(JSON.stringify(report(runs[run])));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  },
  // Waits for the end of a run.
  finish: async ({ run }) => {
    await runs[run].done;
    return report(runs[run]);
  },
  pending: async ({ name, chatId }) => transports[name].storage.getStreamId(chatId),
  // What useAssistantTransportRuntime does: the state retained, then the replay, decoded onto that state.
  resumeTransport: async ({ api, protocol, threadId }) => {
    const post = (path, body) => fetch(`${api}${path}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const retained = await post("/resume-state", { threadId });
    if (retained.status === 204) return null;
    const { state, runId } = await retained.json();
    const response = await post("/resume", { commands: [], threadId, runId });
    if (!response.ok) throw new Error(`${response.status}`);
    const Decoder = protocol === "assistant-transport"
      ? assistantStream.AssistantTransportDecoder : assistantStream.DataStreamDecoder;
    const initialMessage = assistantStream.unstable_createInitialMessage({ unstable_state: state });
    const messages = response.body.pipeThrough(new Decoder({ strict: false }))
      .pipeThrough(new assistantStream.AssistantMessageAccumulator({ initialMessage, throttle: true, strict: false }));
    const run = { message: null, errors: [], ending: null };
    const read = async () => {
      for await (const message of messages) run.message = { ...message };
      run.ending = "end";
    };
    run.done = read().catch((error) => { run.ending = String(error); });
    runs[runId] = run;
    return { state, runId, replay: Number(response.headers.get("Aui-Replay-Content-Length")) };
  },
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
