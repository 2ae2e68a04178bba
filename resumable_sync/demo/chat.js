// A chat over the AI SDK's UI message stream: what useChat({resume: true}) does, without a framework.
// The browser keeps the conversation and the id of the stream that is being read; the text is the server's.

const API = "api/chat";
const RETRY_MILLISECONDS = 1000;
const byId = (id) => document.getElementById(id);
const list = byId("messages");
const question = byId("question");

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
if (!location.hash) history.replaceState(null, "", `#${newId()}`);
const chatId = location.hash.slice(1);
const kept = `resumable-sync-chat-${chatId}`;

let messages = []; // {id, role, parts}: the AI SDK's shape
let pending = null; // id of the stream whose answer is not complete yet
let reading = null; // the AbortController of the response that is being read

const load = () => {
  try {
    ({ messages, pending } = JSON.parse(localStorage.getItem(kept)) ?? { messages: [], pending: null });
  } catch {
    messages = [];
    pending = null;
  }
};
const keep = () => localStorage.setItem(kept, JSON.stringify({ messages, pending }));

const status = (kind, label) => {
  byId("status").dataset.status = kind;
  byId("status").textContent = label;
  const busy = kind === "streaming" || kind === "retrying";
  byId("send").disabled = busy || kind === "dropped";
  byId("stop").disabled = !busy && kind !== "dropped";
  byId("drop").disabled = !busy && kind !== "dropped";
  byId("drop").textContent = kind === "dropped" ? "Reconnect" : "Drop connection";
};

const element = (tag, className, ...children) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
};

const toolBox = ({ toolName, input, output, state }) => {
  const made = element("div", "tool", element("strong", "", toolName), element("code", "", JSON.stringify(input ?? "…")));
  made.append(element("div", "", state === "output-available" ? `→ ${JSON.stringify(output)}` : "running…"));
  return made;
};

const show = (message) => {
  let item = document.getElementById(`message-${message.id}`);
  if (!item) {
    item = element("li", message.role);
    item.id = `message-${message.id}`;
    list.append(item);
  }
  item.replaceChildren(...message.parts.map((part) => (part.type === "text" ? element("span", "", part.text) : toolBox(part))));
  if (message.note) item.append(element("span", "note", message.note));
  byId("empty").hidden = true;
};

// The chunks of an answer, applied one after another. A replay begins at the first one, so it starts afresh.
class Answer {
  constructor() { this.message = { id: newId(), role: "assistant", parts: [] }; }

  apply(chunk) {
    const { parts } = this.message;
    const tool = parts.find((part) => part.toolCallId && part.toolCallId === chunk.toolCallId);
    switch (chunk.type) {
      case "start":
        this.message.id = chunk.messageId ?? this.message.id;
        messages = messages.filter((message) => message.id !== this.message.id);
        messages.push(this.message);
        break;
      case "text-start": parts.push({ type: "text", id: chunk.id, text: "" }); break;
      case "text-delta": parts.findLast((part) => part.id === chunk.id).text += chunk.delta; break;
      case "tool-input-start":
        parts.push({ type: `tool-${chunk.toolName}`, toolName: chunk.toolName, toolCallId: chunk.toolCallId, state: "input" });
        break;
      case "tool-input-available": Object.assign(tool, { input: chunk.input, state: "input-available" }); break;
      case "tool-output-available": Object.assign(tool, { output: chunk.output, state: "output-available" }); break;
      case "error": this.message.note = chunk.errorText; break;
      case "finish": this.finished = true; if (chunk.finishReason === "other") this.message.note = "Stopped."; break;
      default: return;
    }
    show(this.message);
  }
}

// Reads a response to its end; true if the message is complete then.
const read = async (response) => {
  const answer = new Answer();
  const decoder = new TextDecoder();
  let text = "";
  for (let reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return answer.finished === true;
    const lines = (text + decoder.decode(value, { stream: true })).split("\n");
    text = lines.pop();
    for (const line of lines) { // one line of data per event; all else is comments and blank lines
      if (line.startsWith("data: {")) answer.apply(JSON.parse(line.slice(6)));
    }
    list.lastElementChild?.scrollIntoView({ block: "nearest" });
  }
};

// Follows the answer until it is complete, whatever the connection does.
const follow = async (request) => {
  const controller = new AbortController();
  reading = controller;
  status("streaming", "answering");
  for (let response = request(controller.signal); ; response = resume(controller.signal)) {
    try {
      const answered = await response;
      if (answered.status === 204 || answered.status === 404) {
        if (answered.status === 404) status("lost", "the answer is gone");
        else status("none", "ready");
        break;
      }
      if (answered.ok) {
        pending = answered.headers.get("x-resumable-stream-id");
        keep();
        status("streaming", "answering");
        if (await read(answered)) {
          status("done", "ready");
          break;
        }
      }
    } catch (error) {
      if (controller.signal.aborted) return; // dropped by hand: pending says where to go on
      console.info(`connection lost: ${error}`);
    }
    status("retrying", "connection lost, trying again");
    await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
    if (controller.signal.aborted) return;
    if (!pending) { // the question never arrived
      status("error", "not sent");
      break;
    }
  }
  pending = null;
  keep();
};

const resume = (signal) => fetch(pending ? `${API}/streams/${pending}` : `${API}/${chatId}/stream`, { signal });

byId("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || byId("send").disabled) return;
  question.value = "";
  const message = { id: newId(), role: "user", parts: [{ type: "text", text }] };
  messages.push(message);
  keep();
  show(message);
  pending = null;
  follow((signal) => fetch(API, {
    method: "POST", signal, headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ id: chatId, messages: messages.slice(-20), trigger: "submit-message" }),
  }));
};

byId("stop").onclick = async () => {
  await fetch(`${API}/${chatId}/stop`, { method: "POST" });
  if (reading?.signal.aborted && pending) follow(resume); // dropped: fetch how it ended
};

byId("drop").onclick = () => {
  if (reading.signal.aborted) {
    follow(resume);
  } else {
    reading.abort();
    status("dropped", "connection dropped");
  }
};

byId("new").onclick = () => {
  location.hash = newId();
};
window.onhashchange = () => location.reload();

load();
messages.forEach(show);
follow(resume); // whatever is being answered: by its id, or the chat's newest stream
