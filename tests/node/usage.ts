// What the types of resumable.js allow; checked by the compiler, never run.
import { follow, StreamEndedError, type Ending, type Followed, type Status } from "../../resumable_sync/static/resumable.js";

const text: Followed = follow("/answers/1", { method: "POST", body: JSON.stringify({ question: "?" }), resumeUrl: new URL("http://host/") });
const bytes: Followed<Uint8Array> = follow("/answers/1", { as: "bytes", format: "raw", timeout: 60_000, wait: 5000 });

export async function use(): Promise<Ending> {
  try {
    for await (const chunk of text) chunk.toUpperCase();
    for await (const chunk of bytes) chunk.byteLength.toFixed();
  } catch (error) {
    if (error instanceof StreamEndedError) return error.ending;
  }
  const controller = new AbortController();
  const states: Status["state"][] = [];
  const pushed = follow("a", {
    as: "bytes", encoding: "base64", signal: controller.signal, storageKey: "a", storage: localStorage, cancelUrl: "a/cancel",
    headers: async () => ({ authorization: "token" }), credentials: "include", giveUpAfter: 1e6, retryDelay: 1, maxRetryDelay: 2,
    onChunk: async (chunk, cursor) => [chunk.byteLength, cursor.length],
    onEnding: ({ status, error }) => [status, error?.length],
    onStatus: ({ state }) => states.push(state),
    fetch: (url, init) => fetch(url.href, init),
  });
  await pushed.cancel();
  pushed.close();
  // @ts-expect-error: an encoding of no server
  follow("a", { encoding: "utf-8" });
  // @ts-expect-error: chunks are text unless `as` says otherwise
  follow("a", { onChunk: (chunk: Uint8Array) => chunk });
  // @ts-expect-error: chunks are bytes
  for await (const chunk of bytes) chunk.toUpperCase();
  // @ts-expect-error: the cursor is the stream's to move
  pushed.cursor = "1-2";
  // @ts-expect-error: an ending that there is none of
  if ((await pushed.ending).status === "complete") return pushed.ending;
  return pushed.ending;
}
