// A page with the real useChat. The chat is the address's fragment; what was asked is kept as an application
// would keep it, what is answered is not.
import { createElement as element } from "react";
import { createRoot } from "react-dom/client";
import { useChat } from "sdk-react";
import { DefaultChatTransport } from "sdk";

const chatId = location.hash.slice(1);
const asked = JSON.parse(sessionStorage.getItem(chatId) ?? "[]");
const transport = new DefaultChatTransport({ api: "/api/ui-message-stream" });

const Chat = () => {
  const { messages, status, error, sendMessage } = useChat({ id: chatId, messages: asked, resume: true, transport });
  window.chat = { messages, status, error: error && String(error) };
  window.send = (text) => {
    const message = { id: `user-${asked.length}`, role: "user", parts: [{ type: "text", text }] };
    sessionStorage.setItem(chatId, JSON.stringify([...asked, message]));
    sendMessage({ text });
  };
  const parts = messages.flatMap((message) => message.parts.filter((part) => part.type === "text"));
  return element("pre", null, parts.map((part) => part.text).join("\n"));
};

createRoot(document.getElementById("root")).render(element(Chat));
