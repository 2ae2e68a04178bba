// A page with the real useChat, in every version of the AI SDK: tools of the browser, approvals, stop, regenerate.
// The chat is the address's fragment. What the page keeps for its next load are the messages at a call of keep(), and
// what was asked since.
import { createElement as element, useRef } from "react";
import { createRoot } from "react-dom/client";
import { useChat } from "sdk-react";
import * as sdk from "sdk";

const api = "/api/chat";
const chatId = location.hash.slice(1);
const kept = JSON.parse(sessionStorage.getItem(chatId) ?? "[]");
const keep = (messages) => sessionStorage.setItem(chatId, JSON.stringify(messages));
const { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls: withCalls } = sdk;
const withApprovals = sdk.lastAssistantMessageIsCompleteWithApprovalResponses ?? (() => false); // AI SDK 5 has none

window.ran = [];
window.posts = 0;
const counted = (address, options) => {
  if (options?.method === "POST" && ++window.posts > 6) throw new Error("asked without end");
  return fetch(address, options);
};
const transport = new DefaultChatTransport({ api, fetch: counted });

const Page = () => {
  const held = useRef(null);
  const chat = useChat({
    id: chatId, messages: kept, resume: true, transport,
    sendAutomaticallyWhen: (given) => withCalls(given) || withApprovals(given),
    onToolCall: ({ toolCall: { toolName, toolCallId, input } }) => {
      window.ran.push([toolName, input]);
      if (toolName !== "ask") return;
      const { addToolOutput, addToolResult } = held.current;
      (addToolOutput ?? addToolResult)({ tool: toolName, toolCallId, output: "yes" });
    },
  });
  held.current = chat;
  const { messages, status, error } = chat;
  window.chat = { messages, status, error: error ? String(error) : null };
  window.act = {
    keep: () => keep(messages),
    send: (text) => {
      const message = { id: `user-${messages.length}`, role: "user", parts: [{ type: "text", text }] };
      keep([...messages, message]);
      chat.sendMessage(message);
    },
    stop: () => fetch(`${api}/${encodeURIComponent(chatId)}/stop`, { method: "DELETE" }),
    regenerate: () => chat.regenerate(),
    approve: (id, approved) => chat.addToolApprovalResponse({ id, approved }),
  };
  return element("pre", null, JSON.stringify(messages, null, 1));
};

createRoot(document.getElementById("root")).render(element(Page));
