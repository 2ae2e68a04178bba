/**
 * A client of resumable_sync's streams, for browsers and Node 20 or newer; one ES module without dependencies.
 *
 * ```js
 * import { follow } from "./resumable.js";
 *
 * const stream = follow(`/answers/${id}`, { method: "POST", body: question });
 * for await (const text of stream) show(text);          // throws StreamEndedError unless the stream ends as done
 * ```
 *
 * or, where a callback takes the chunks:
 *
 * ```js
 * follow(`/answers/${id}`, { onChunk: show, onEnding: ({ status }) => tell(status) });
 * ```
 *
 * It reads what `sse_response`, `stream_response` and their `resume_…` siblings send: each byte once and in order, over
 * as many connections as that takes, and then how the stream ended. It never tells `done` of a stream that is not.
 * Raw responses with `heartbeat_bytes`, and chats, whose bytes are not all the stream's, are not for it.
 *
 * A page of another origin needs `Access-Control-Expose-Headers: x-resumable-cursor, x-resumable-status,
 * x-resumable-size, x-resumable-replay-length, retry-after`.
 *
 * @packageDocumentation
 */

/**
 * How the following of a stream ended. The stream's own endings, as the server tells them:
 *
 * - `done`: all of it was received.
 * - `error`: its source raised.
 * - `cancelled`: somebody stopped it.
 * - `interrupted`: its producer was lost.
 * - `lost`: it was there, and is gone or was replaced by another life (404 or 410 for a cursor of it).
 *
 * Those of this client, which say nothing about the stream:
 *
 * - `missing`: there was no such stream within `wait`.
 * - `refused`: an answer that another attempt would not change, such as 401 or 403, or that is none of a stream's.
 * - `unreachable`: nothing came for `giveUpAfter`.
 * - `aborted`: by `close()`, the signal, a `break` out of the iteration, or an exception of `onChunk`.
 */
export type EndingStatus =
  | "done" | "error" | "cancelled" | "interrupted" | "lost"
  | "missing" | "refused" | "unreachable" | "aborted";

export interface Ending {
  readonly status: EndingStatus;
  /** The position reached; `""` if nothing is known of the stream. */
  readonly cursor: string;
  /** Why, for people. Of `error` it is what the server tells, which raw responses cannot. */
  readonly error?: string;
  /** The HTTP status that led to it, where one did. */
  readonly httpStatus?: number;
  /** What was thrown, or the signal's reason. */
  readonly cause?: unknown;
}

/** Where the following stands. */
export interface Status {
  /**
   * `connecting`: a request is made. `replaying`: what is stored is received. `live`: all that was stored has been
   * received, the rest comes as it is made. `waiting`: the connection is gone, the next one is made after `delay`.
   */
  readonly state: "connecting" | "replaying" | "live" | "waiting";
  /** The position reached. */
  readonly cursor: string;
  /** `connecting`, `waiting`: how many attempts in a row have failed. */
  readonly attempt?: number;
  /** `waiting`: milliseconds until the next attempt, at most. */
  readonly delay?: number;
  /** `waiting`: what happened to the connection. */
  readonly reason?: string;
}

export interface FollowOptions<Chunk extends string | Uint8Array = string> {
  /**
   * What chunks are. Text is never torn within a character, and the cursor counts only what it has told; bytes that
   * are not UTF-8 become U+FFFD. Default `"text"`.
   */
  as?: Chunk extends string ? "text" : "bytes";
  /** What the responses are. Default: as their Content-Type says; a raw stream of `text/event-stream` needs `"raw"`. */
  format?: "events" | "raw";
  /**
   * The server's `encode=` of events. With `"text"` (default) line ends arrive as LF; the others are exact. Chunks of
   * bytes come out of all three.
   */
  encoding?: "text" | "json" | "base64";

  /**
   * How the first request is made. Default `"POST"` if there is a `body`, else `"GET"`. What is not `"GET"` begins
   * the stream. It is sent once, and then resumed by GET; it is sent again only if the server said that nothing was
   * begun (503, 429; not the 200 of a full ViewerCap for EventSource), or if it was cut and there is no such stream.
   */
  method?: "GET" | "POST" | "PUT";
  /** The body of the request that begins the stream; not a ReadableStream, as it may be sent again. */
  body?: Exclude<BodyInit, ReadableStream>;
  /** Where to resume by GET. Default: `url`. The cursor is added as the query parameter `after`. */
  resumeUrl?: string | URL;
  /** Where `cancel()` posts to. The application calls `context.cancel(stream_id)` there. */
  cancelUrl?: string | URL;
  /** Headers of every request; a function is called for each of them, so that a token may be fresh. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** As of `fetch`. */
  credentials?: RequestCredentials;
  /** What makes the requests. Default: the global `fetch`. */
  fetch?: (url: URL, init: RequestInit) => Promise<Response>;

  /** Go on after this position. Default: what is kept under `storageKey`, else the start. */
  cursor?: string;
  /**
   * Keep the cursor under this key, so that a reload of the page goes on where it was, and does not POST again. For
   * pages that keep what they have received; others leave it out, and read all of the stream again. One key for
   * each stream. The chunk that is handled during the reload comes again. Where nothing can be stored (a private
   * window, a full storage) a reload begins anew.
   */
  storageKey?: string;
  /** Where to keep it. Default: `sessionStorage`. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;

  /** Milliseconds that a stream, asked for by GET every two seconds or so, may not have begun yet. Default 0. */
  wait?: number;
  /**
   * Milliseconds of silence after which a connection counts as dead; longer than the server's `heartbeat` (15 s) and
   * `wait`. Default 45,000. A raw stream that is silent is connected anew then, at the same byte. Not measured
   * while the consumer has not asked for more.
   */
  timeout?: number;
  /**
   * Milliseconds. The pause before attempt n is random, up to `retryDelay * 2 ** n` but not above `maxRetryDelay`, and
   * not below Retry-After. Progress begins the count anew. Defaults 500 and 30,000.
   */
  retryDelay?: number;
  maxRetryDelay?: number;
  /** Milliseconds without a byte or a lasting connection after which the ending is `unreachable`. Default: never. */
  giveUpAfter?: number;
  /** Ends the following as `aborted`. The stream itself goes on. */
  signal?: AbortSignal;

  /**
   * Takes the chunks, one after another: the next one waits for the promise it returns. `cursor` is the position
   * after the chunk; a page that keeps both together resumes exactly. With it the stream is not iterated.
   */
  onChunk?: (chunk: Chunk, cursor: string) => unknown;
  /** Told the ending, exactly once. */
  onEnding?: (ending: Ending) => void;
  onStatus?: (status: Status) => void;
}

/** A stream that is followed, by one consumer. */
export interface Followed<Chunk extends string | Uint8Array = string> {
  /** The ending, once it is known. Never rejects. */
  readonly ending: Promise<Ending>;
  /** The position after the newest chunk that was handed out; `""` before anything is known. */
  readonly cursor: string;
  /** Stop following; the ending is `aborted`, and no chunk is handed out after it. The stream goes on. Idempotent. */
  close(): void;
  /**
   * Ask the server to stop the stream, for all who follow it; it is told as the ending `cancelled` then, or what else
   * it has come to. One request by POST, also after `close()`. TypeError without `cancelUrl`; rejects if the request
   * fails or is refused.
   */
  cancel(): Promise<void>;
  /**
   * The chunks. The first `next()` connects, and while none is asked for none is read, so that a slow consumer
   * slows down the connection. Returns at `done` only; at any other ending it throws StreamEndedError. A stream is
   * iterated once; TypeError after that.
   */
  [Symbol.asyncIterator](): AsyncGenerator<Chunk, void, undefined>;
}

/** Thrown out of an iteration whose stream ended other than as `done`. */
export declare class StreamEndedError extends Error {
  readonly ending: Ending;
  constructor(ending: Ending);
}

/**
 * Follow the stream at `url` (relative: to the document). With `onChunk` it begins by itself; otherwise iterate what
 * is returned.
 *
 * TypeError at once for an address, a cursor or an encoding that is none. All else is told as the ending.
 */
export declare function follow(url: string | URL, options?: FollowOptions<string>): Followed<string>;
export declare function follow(
  url: string | URL, options: FollowOptions<Uint8Array> & { as: "bytes" },
): Followed<Uint8Array>;
