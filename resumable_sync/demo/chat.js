// A chat over the AI SDK's UI message stream: what useChat({resume: true}) does, without a framework.
// The browser keeps the conversation and the id of the stream that is being read; the text is the server's.

const API = "api/chat";
const RETRY_MILLISECONDS = 1000;
const SENT_MESSAGES = 20;
const NEAR_THE_END = 60; // pixels from the end within which the page follows what is written
const byId = (id) => document.getElementById(id);
const list = byId("messages");
const question = byId("question");

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
if (!location.hash) history.replaceState(null, "", `#${newId()}`);
const chatId = location.hash.slice(1);
const storageKey = `resumable-sync-chat-${chatId}`;

let messages = []; // {id, role, parts}: the AI SDK's shape, and what this page notes: `note`, `streams` that were read
let pending = null; // id of the stream whose answer is not complete yet
let reading = null; // the AbortController of the response that is being read

const stored = () => {
  try {
    return JSON.parse(localStorage.getItem(storageKey)) ?? { messages: [], pending: null };
  } catch {
    return { messages: [], pending: null };
  }
};
const keep = () => localStorage.setItem(storageKey, JSON.stringify({ messages, pending }));
// While an answer is written, what is kept of its message is what was there before: a replay goes on from that.
const keepPending = () => localStorage.setItem(storageKey, JSON.stringify({ ...stored(), pending }));

const status = (kind, label) => {
  byId("status").dataset.status = kind;
  byId("status").textContent = label;
  const busy = kind === "streaming" || kind === "retrying" || kind === "dropped";
  byId("send").disabled = busy;
  byId("stop").disabled = !busy || kind === "retrying"; // nobody is there to be told
  byId("drop").disabled = !busy;
  byId("drop").textContent = kind === "dropped" ? "Reconnect" : "Drop connection";
  for (const button of document.querySelectorAll(".choices button, .example")) button.disabled = busy;
};

const element = (tag, className, ...children) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
};

const choice = (label, className, message, part, approved) => {
  const made = element("button", className, label);
  made.type = "button";
  made.onclick = () => decide(message, part, approved);
  return made;
};

const outcome = (message, part) => {
  switch (part.state) {
    case "approval-requested":
      if (message !== messages.at(-1)) return element("div", "", "not decided"); // the user has asked something else
      return element("div", "choices",
        choice("Allow", "primary allow", message, part, true), choice("Refuse", "refuse", message, part, false));
    case "approval-responded": return element("div", "", part.approval.approved ? "allowed…" : "refused");
    case "output-available": return element("div", "", `→ ${JSON.stringify(part.output)}`);
    case "output-error": return element("div", "note", part.errorText);
    case "output-denied": return element("div", "", "refused");
    default: return element("div", "", "running…");
  }
};

const shown = (message, part) => {
  if (part.type === "text") return element("span", "", part.text);
  if (!part.toolCallId) return "";
  const name = part.type.slice("tool-".length);
  return element("div", "tool", element("strong", "", name), element("code", "", JSON.stringify(part.input ?? "…")), outcome(message, part));
};

const show = (message) => {
  const scroller = byId("conversation");
  const following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_THE_END;
  let item = document.getElementById(`message-${message.id}`);
  if (!item) {
    item = element("li", message.role);
    item.id = `message-${message.id}`;
    list.append(item);
  }
  item.replaceChildren(...message.parts.map((part) => shown(message, part)));
  if (message.note) item.append(element("span", "note", message.note));
  byId("empty").hidden = true;
  if (following || message.role === "user") scroller.scrollTop = scroller.scrollHeight;
};

// The chunks of an answer, applied one after another, to the message as it was before this stream.
class Answer {
  constructor(streamId) {
    this.streamId = streamId;
    this.begin(newId());
  }

  begin(id) {
    const before = stored().messages.find((message) => message.id === id) ?? { id, role: "assistant", parts: [] };
    this.known = before.streams?.includes(this.streamId); // it was read to its end: there is nothing new in it
    this.message = before;
    this.finished = false;
  }

  apply(chunk) {
    if (chunk.type === "start") {
      this.begin(chunk.messageId ?? this.message.id);
      delete this.message.note;
    }
    if (this.known) {
      this.finished = true;
      return;
    }
    const { parts } = this.message;
    const tool = parts.find((part) => part.toolCallId && part.toolCallId === chunk.toolCallId);
    switch (chunk.type) {
      case "start": {
        const at = messages.findIndex((message) => message.id === this.message.id);
        if (at < 0) messages.push(this.message);
        else messages[at] = this.message;
        break;
      }
      case "start-step": parts.push({ type: "step-start" }); break;
      case "text-start": parts.push({ type: "text", id: chunk.id, text: "" }); break;
      case "text-delta": parts.findLast((part) => part.id === chunk.id).text += chunk.delta; break;
      case "tool-input-start":
        parts.push({ type: `tool-${chunk.toolName}`, toolCallId: chunk.toolCallId, state: "input-streaming" });
        break;
      case "tool-input-available": Object.assign(tool, { input: chunk.input, state: "input-available" }); break;
      case "tool-input-error":
      case "tool-output-error": Object.assign(tool, { errorText: chunk.errorText, state: "output-error" }); break;
      case "tool-approval-request":
        Object.assign(tool, { approval: { id: chunk.approvalId }, state: "approval-requested" });
        break;
      case "tool-output-available":
        if (tool) Object.assign(tool, { output: chunk.output, state: "output-available" });
        break;
      case "tool-output-denied": Object.assign(tool, { state: "output-denied" }); break;
      case "error": Object.assign(this.message, { note: chunk.errorText }); this.finished = true; break;
      case "abort": this.message.note = "Stopped."; this.finished = true; break;
      case "finish":
        this.finished = true;
        if (chunk.finishReason === "other") this.message.note ??= "Stopped.";
        break;
      default: return;
    }
    show(this.message);
  }
}

// Reads a response to its end; true if the message is complete then.
const read = async (response) => {
  const answer = new Answer(pending);
  const decoder = new TextDecoder();
  let text = "";
  for (let reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (text + decoder.decode(value, { stream: true })).split("\n");
    text = lines.pop();
    for (const line of lines) { // one line of data per event; all else is comments and blank lines
      if (line.startsWith("data: {")) answer.apply(JSON.parse(line.slice(6)));
    }
  }
  if (answer.finished && !answer.known) {
    answer.message.streams = [...(answer.message.streams ?? []), pending];
    show(answer.message);
  }
  return answer.finished;
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
        keepPending();
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
    status("retrying", "reconnecting");
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

// Sends the conversation as it is now, and follows what is answered.
const send = () => {
  pending = null;
  keep();
  const sent = messages.slice(-SENT_MESSAGES).map(({ id, role, parts }) => ({ id, role, parts }));
  follow((signal) => fetch(API, {
    method: "POST", signal, headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ id: chatId, messages: sent, trigger: "submit-message" }),
  }));
};

const ask = (text) => {
  if (!text || byId("send").disabled) return;
  const message = { id: newId(), role: "user", parts: [{ type: "text", text }] };
  const before = messages.at(-1);
  messages.push(message);
  if (before) show(before); // it may have offered a choice, which is over
  show(message);
  send();
};

// The user allows a tool, or refuses; the server goes on with the message that has asked.
const decide = (message, part, approved) => {
  Object.assign(part, { state: "approval-responded", approval: { ...part.approval, approved } });
  delete message.note;
  show(message);
  send();
};

byId("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (text && !byId("send").disabled) question.value = "";
  ask(text);
};

for (const button of document.querySelectorAll(".example")) button.onclick = () => ask(button.textContent);

byId("stop").onclick = async () => {
  try {
    await fetch(`${API}/${chatId}/stop`, { method: "POST" });
  } catch (error) {
    console.info(`not stopped: ${error}`); // the answer's own connection says what is the matter
  }
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

({ messages, pending } = stored());
messages.forEach(show);
follow(resume); // whatever is being answered: by its id, or the chat's newest stream
