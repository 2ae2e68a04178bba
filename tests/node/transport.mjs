// A page with assistant-ui's useAssistantTransportRuntime. The address's fragment is the thread and the protocol, as in
// `#thread-1/data-stream`; with a third member it asks for the state that a run began with before it resumes. The
// state is what the application makes of it: here {asked: […], said: "…"}.
import { createElement as element, useEffect } from "react";
import { createRoot } from "react-dom/client";
import { AssistantRuntimeProvider, ThreadPrimitive, useAssistantTransportRuntime } from "@assistant-ui/react";

const [threadId, protocol, withState] = location.hash.slice(1).split("/");
const api = `/api/${protocol}`;
const resumeStateApi = withState && `${api}/resume-state`;

// Where a list of threads knows the thread's id, the runtime sends it along; here nothing does.
const { fetch } = window;
window.fetch = (address, options) =>
  fetch(address, address === resumeStateApi ? { ...options, body: JSON.stringify({ threadId }) } : options);

const message = (id, role, text) => ({
  id, role, content: [{ type: "text", text }], createdAt: new Date(0), metadata: { custom: {} }, attachments: [],
  ...(role === "assistant" && { status: { type: "complete", reason: "unknown" } }),
});

const converter = (state, { pendingCommands, isSending }) => {
  const pending = pendingCommands.flatMap((command) => command.message?.parts.map((part) => part.text) ?? []);
  const asked = [...(state.asked ?? []), ...pending];
  const messages = asked.map((text, at) => message(`user-${at}`, "user", text));
  if (state.said) messages.push(message("answer", "assistant", state.said));
  window.state = state;
  window.running = isSending;
  return { messages, isRunning: isSending, state };
};

const Message = () => null;

const Page = () => {
  const runtime = useAssistantTransportRuntime({
    initialState: { asked: [], said: "" },
    api, protocol, converter,
    resumeApi: `${api}/resume`, resumeStateApi,
    headers: {},
    body: { threadId },
    onError: (error) => { window.failure = String(error); },
    onFinish: () => { window.finished = true; },
  });
  useEffect(() => {
    window.act = {
      send: (text) => runtime.thread.append({ role: "user", content: [{ type: "text", text }] }),
      resume: () => runtime.thread.resumeRun({ parentId: null }),
      cancel: () => runtime.thread.cancelRun(),
    };
  }, [runtime]);
  return element(AssistantRuntimeProvider, { runtime },
    element(ThreadPrimitive.Root, null, element(ThreadPrimitive.Messages, { components: { Message } })));
};

createRoot(document.getElementById("root")).render(element(Page));
