// Follows a stream of resumable_sync across cuts, restarts and reloads. What it promises: resumable.d.ts beside it.
// Positions are cursors, "<generation>-<offset>": the offset counts bytes of the stream, a generation is one life of it.

const limited = (milliseconds) => Math.min(milliseconds, 2 ** 31 - 1); // a longer timer would ring at once
const STEADY = 5_000; // milliseconds after which a connection that is lost was none that failed
const NOT_YET = 2_000; // milliseconds, at most, until a stream that has not begun is asked for again
const ENDED = new Set(["done", "error", "cancelled", "interrupted"]);
const TRANSIENT = new Set([408, 425, 429]); // and what is 500 or more
const STATUS_HEADER = "x-resumable-status";
const CURSOR_HEADER = "x-resumable-cursor";
const SIZE_HEADER = "x-resumable-size";
const REPLAY_HEADER = "x-resumable-replay-length";
const HEADLESS_LIMIT = 5; // responses without the headers of a stream, before the first that has them: it is none

/** Follow the stream at `url`. */
export function follow(url, options = {}) {
  return new Followed(url, options);
}

/** Thrown out of an iteration whose stream ended other than as `done`. */
export class StreamEndedError extends Error {
  constructor(ending) {
    super(`the stream ended as ${ending.status}${ending.error ? `: ${ending.error}` : ""}`, { cause: ending.cause });
    this.name = "StreamEndedError";
    this.ending = ending;
  }
}

/** Why a connection is to be made anew: `after` milliseconds at least, without any pause if `prompt`. */
class Broken extends Error {
  constructor(reason, { after = 0, prompt = false, missing = false } = {}) {
    super(reason);
    Object.assign(this, { after, prompt, missing });
  }
}

const parseCursor = (cursor) => {
  const match = /^(\d+)-(\d+)$/.exec(cursor ?? "");
  return match && { generation: match[1], offset: Number(match[2]) };
};

const cursorOf = (position) => (position ? `${position.generation}-${position.offset}` : "");

const absolute = (url) => new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);

const message = (error) => String(error?.message ?? error);

/** Call what the page gave; what it raises is the page's own matter, and stops nothing here. */
const tell = (callback, value) => {
  try {
    callback?.(value);
  } catch (error) {
    queueMicrotask(() => { throw error; });
  }
};

/** Milliseconds that a response asks to be left alone: Retry-After in seconds, or a date by the server's own clock. */
const retryAfter = ({ headers }) => {
  const asked = headers.get("retry-after")?.trim() ?? "";
  if (/^\d+$/.test(asked)) return Number(asked) * 1000;
  return Math.max(0, Date.parse(asked) - (Date.parse(headers.get("date")) || Date.now())) || 0;
};

/** How many bytes at the end of `bytes` begin a character that is not complete. */
const tornBytes = (bytes) => {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back];
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? back : 0;
    if (byte < 0x80) return 0;
  }
  return 0;
};

/** Bytes as the page wants them. What is held back of a torn character does not count as received. */
class Output {
  constructor(text) {
    this.decoder = text ? new TextDecoder("utf-8", { ignoreBOM: true }) : null;
    this.held = new Uint8Array(0);
  }

  take(bytes) {
    if (!this.decoder) return bytes;
    let whole = bytes;
    if (this.held.length) {
      whole = new Uint8Array(this.held.length + bytes.length);
      whole.set(this.held);
      whole.set(bytes, this.held.length);
    }
    const complete = whole.length - tornBytes(whole);
    this.held = whole.slice(complete);
    return this.decoder.decode(whole.subarray(0, complete));
  }

  rest() {
    const { held } = this;
    this.held = new Uint8Array(0);
    return held.length ? this.decoder.decode(held) : "";
  }
}

/** Server-sent events, by the WHATWG's standard; only what is complete counts. */
class EventParser {
  #decoder = new TextDecoder();
  #line = "";
  #afterCR = false;
  #data = [];
  #name = "";
  #id = "";

  *feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return;
    if (this.#afterCR && text[0] === "\n") text = text.slice(1);
    this.#afterCR = text.endsWith("\r"); // the LF of the pair may come with the next bytes
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) {
      if (line) this.#field(line);
      else if (this.#data.length) yield this.#event();
      else this.#name = "";
    }
  }

  #event() {
    const event = { data: this.#data.join("\n"), name: this.#name || "message", id: this.#id };
    this.#data = [];
    this.#name = "";
    return event;
  }

  #field(line) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#name = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }
}

const DECODE = {
  text: (data) => data,
  json: (data) => {
    const text = JSON.parse(data);
    if (typeof text !== "string") throw new TypeError("no string");
    return text;
  },
  base64: (data) => Uint8Array.from(atob(data), (character) => character.charCodeAt(0)),
};

class Followed {
  #url;
  #resumeUrl;
  #cancelUrl;
  #options;
  #starts; // a request of the page's own begins the stream, until it was answered
  #raw; // whether the responses are raw bytes; undefined before the first
  #headless = 0; // see HEADLESS_LIMIT
  #ask = false; // HEAD next: a response that ended before its headers came may be an ending
  #position;
  #iterated = false;
  #ended = null;
  #resolve;
  #accepted = Infinity; // when the connection turned out to be the stream's, by performance.now()
  #connection = null; // the AbortController of the request that is made or read
  #heard = 0; // by Date.now(), when the connection that is waited for last showed life; 0: none is waited for
  #wake = null; // ends the pause between two connections
  #release = []; // the listeners' removal

  constructor(url, options) {
    this.#options = {
      method: options.body == null ? "GET" : "POST", as: "text", encoding: "text", wait: 0, timeout: 45_000,
      retryDelay: 500, maxRetryDelay: 30_000, giveUpAfter: Infinity, fetch: globalThis.fetch,
      ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)),
    };
    if (!Object.hasOwn(DECODE, this.#options.encoding)) throw new TypeError(`no such encoding: ${options.encoding}`);
    this.#url = absolute(url);
    this.#resumeUrl = absolute(options.resumeUrl ?? url);
    this.#cancelUrl = options.cancelUrl == null ? null : absolute(options.cancelUrl);
    this.#position = parseCursor(options.cursor ?? this.#storage((storage) => storage.getItem(options.storageKey)));
    if (options.cursor && !this.#position) throw new TypeError(`not a cursor: ${options.cursor}`);
    this.#starts = this.#options.method !== "GET" && !this.#position;
    this.#raw = options.format ? options.format === "raw" : undefined;
    this.ending = new Promise((resolve) => { this.#resolve = resolve; });
    if (options.signal?.aborted) this.#abort(options.signal.reason);
    else this.#listen(options.signal, "abort", () => this.#abort(options.signal.reason));
    if (options.onChunk) {
      this.#iterated = true;
      queueMicrotask(() => this.#chunks().next()); // which gives none: they go to onChunk
    }
  }

  get cursor() {
    return cursorOf(this.#position);
  }

  close() {
    this.#abort();
  }

  async cancel() {
    if (!this.#cancelUrl) throw new TypeError("cancel() needs the option cancelUrl");
    const response = await this.#fetch(this.#cancelUrl, { method: "POST" });
    if (!response.ok) throw new Error(`the cancel request was answered ${response.status}`);
    this.#wake?.();
  }

  async *[Symbol.asyncIterator]() {
    if (this.#iterated) throw new TypeError("a stream is followed once: call follow() again");
    this.#iterated = true;
    yield* this.#chunks();
    if (this.#ended.status !== "done") throw new StreamEndedError(this.#ended);
  }

  // Connects until the stream has ended. Whatever is raised on the way to a response, or within it, is a cut.
  async *#chunks() {
    const began = performance.now();
    let progress = began;
    let attempt = 0;
    this.#watch();
    try {
      while (!this.#ended) {
        const before = this.cursor;
        let broken;
        this.#accepted = Infinity;
        try {
          this.#status("connecting", { attempt });
          yield* this.#connect();
          continue;
        } catch (error) {
          broken = error instanceof Broken ? error : new Broken(message(error));
        } finally {
          this.#connection?.abort();
          this.#heard = 0;
        }
        if (this.#ended) return;
        const now = performance.now();
        const moved = this.cursor !== before;
        if (moved || now - this.#accepted >= Math.min(STEADY, this.#options.timeout)) {
          attempt = 0; // a stream's silence is nobody's failure
          progress = now;
        }
        const { retryDelay, maxRetryDelay, giveUpAfter, wait } = this.#options;
        let delay = Math.random() * Math.min(maxRetryDelay, retryDelay * 2 ** attempt);
        if (broken.after) delay = Math.max(delay, broken.after + Math.random() * retryDelay);
        if (broken.prompt && moved) delay = 0;
        if (broken.missing) {
          const left = began + wait - now;
          if (left <= 0) return this.#end("missing", { httpStatus: 404, error: broken.message });
          delay = Math.min(broken.after ? delay : Math.min(delay, NOT_YET), left);
        } else if (now + delay - progress > giveUpAfter) {
          return this.#end("unreachable", { error: broken.message });
        }
        attempt += 1;
        if (delay) {
          this.#status("waiting", { attempt, delay, reason: broken.message });
          await this.#pause(delay, broken.after > 0);
        }
      }
    } finally {
      this.#abort(); // the consumer has left
    }
  }

  async *#connect() {
    if (this.#ended) return; // while its status was told
    const starts = this.#starts && !this.#position;
    const asks = this.#ask && this.#raw && this.#position;
    this.#ask = true; // should no response come
    const url = new URL(starts ? this.#url : this.#resumeUrl);
    if (this.#position) url.search += `${url.search ? "&" : ""}after=${this.cursor}`;
    const { method, body } = this.#options;
    if (starts) this.#starts = false; // whether it arrived is not known: ask before it is sent again
    const request = starts ? { method, body } : { method: asks ? "HEAD" : "GET" };
    const response = await this.#waitFor((signal) => this.#fetch(url, { ...request, cache: "no-store", signal }));
    this.#ask = false;
    if (asks && (response.status === 405 || response.status === 501)) return;
    if (!this.#answered(response, starts)) return;
    const at = parseCursor(response.headers.get(CURSOR_HEADER));
    const status = response.headers.get(STATUS_HEADER);
    const [size, replay] = [SIZE_HEADER, REPLAY_HEADER].map((name) => Number(response.headers.get(name) ?? NaN));
    const events = response.headers.get("content-type")?.startsWith("text/event-stream");
    if (events && !at && response.headers.has("retry-after")) { // that is no stream, nor the end of one
      throw new Broken("the server has too many viewers", { after: retryAfter(response) });
    }
    const raw = this.#raw ?? !events;
    if (raw && !(at && size === at.offset + replay)) {
      // Browsers take headers that were cut for a response, with half a number in the last one. Therefore the sum.
      const reason = "the response has no x-resumable-* headers; those of another origin must be exposed";
      this.#headless += 1;
      if (this.#headless < HEADLESS_LIMIT) throw new Broken(reason);
      this.#end("refused", { httpStatus: response.status, error: reason });
      return;
    }
    this.#headless = -Infinity;
    this.#accepted = performance.now();
    this.#raw = raw;
    if (at && !this.#continues(at)) return;
    if (asks) {
      if (ENDED.has(status) && this.#position.offset === size) this.#end(status);
      return;
    }
    this.#save();
    if (this.#raw) yield* this.#readRaw(response, at, ENDED.has(status) ? status : null, size);
    else yield* this.#readEvents(response, at);
  }

  // Whether the response has a body to read. Broken: not now. Else the ending was told.
  #answered(response, starts) {
    const { status, headers } = response;
    const refused = () => this.#end("refused", { httpStatus: status, error: `the server answered ${status}` });
    if (status === 204 && headers.get(STATUS_HEADER) === "done") return this.#end("done");
    if (status === 404 || status === 204) {
      if (this.#position) return this.#end("lost", { httpStatus: status });
      if (starts) return refused();
      this.#starts = this.#options.method !== "GET"; // what was to begin it never arrived
      throw new Broken("there is no such stream", { missing: !this.#starts, after: retryAfter(response) });
    }
    if (status === 410) return this.#end("lost", { httpStatus: status });
    if (status >= 500 || TRANSIENT.has(status)) {
      if (starts && (status === 503 || status === 429)) this.#starts = true; // nothing was begun
      throw new Broken(`the server answered ${status}`, { after: retryAfter(response) });
    }
    return response.ok || refused();
  }

  // Whether a response that begins at `at` goes on from here, perhaps with some bytes once more.
  #continues(at) {
    this.#position ??= at;
    if (at.generation !== this.#position.generation) return this.#end("lost");
    return at.offset <= this.#position.offset || this.#elsewhere(at);
  }

  #elsewhere(at) {
    return this.#end("refused", { error: `the server went on at ${cursorOf(at)} instead of ${this.cursor}` });
  }

  async *#readRaw(response, at, ended, size) {
    const output = new Output(this.#options.as === "text");
    const { generation } = at;
    let { offset } = at;
    let live = false;
    if (ended || offset < size) this.#status("replaying");
    const pieces = this.#pieces(response);
    for (;;) {
      if (ended && offset === size) {
        const rest = ended === "done" ? output.rest() : "";
        if (rest) yield* this.#deliver(rest, { generation, offset });
        this.#end(ended);
        return;
      }
      if (!live && !ended && offset >= size) {
        live = true;
        this.#status("live");
      }
      const { value, done } = await pieces();
      // A cut looks like this, too: over HTTP/1.0, and in Node where the response says "Connection: close".
      if (done) throw new Broken("the response ended, the stream perhaps not", { prompt: true });
      const known = Math.max(0, this.#position.offset - offset);
      offset += value.length;
      if (known >= value.length) continue;
      const chunk = output.take(value.subarray(known));
      yield* this.#deliver(chunk, { generation, offset: offset - output.held.length });
      if (this.#ended) return;
    }
  }

  async *#readEvents(response, at) {
    const { as, encoding } = this.#options;
    const output = new Output(as === "text");
    const parser = new EventParser();
    const pieces = this.#pieces(response);
    let before = at ?? this.#position;
    this.#status("replaying");
    for (;;) {
      const { value, done } = await pieces();
      if (done) throw new Broken("the events broke off");
      for (const event of parser.feed(value)) {
        if (event.name === "live") this.#status("live");
        let data;
        try {
          if (event.name === "end") data = JSON.parse(event.data);
          else if (event.name === "message") data = DECODE[encoding](event.data);
          else continue;
        } catch (error) {
          this.#end("refused", { error: `an event that is not ${encoding}: ${message(error)}`, cause: error });
          return;
        }
        if (event.name === "end") {
          if (!ENDED.has(data?.status) && data?.status !== "lost") {
            this.#end("refused", { error: `an ending that is none: ${event.data}` });
            return;
          }
          if (data.status === "done" && before && data.cursor !== cursorOf(before)) {
            throw new Broken("the end came too soon");
          }
          const rest = data.status === "done" ? output.rest() : "";
          if (rest) yield* this.#deliver(rest, before);
          this.#end(data.status, data.error == null ? {} : { error: data.error });
          return;
        }
        const after = parseCursor(event.id);
        if (!after) {
          this.#end("refused", { error: "an event without a cursor: these are not a stream's events" });
          return;
        }
        const start = before ?? { ...after, offset: 0 };
        before = after;
        this.#position ??= start;
        if (after.generation !== this.#position.generation) {
          this.#end("lost");
          return;
        }
        const reached = this.#position.offset + output.held.length;
        if (after.offset <= reached) continue; // it came before
        if (start.offset < reached) {
          this.#elsewhere(start);
          return;
        }
        let chunk = data;
        if (typeof data !== "string") chunk = output.take(data);
        else if (as === "bytes") chunk = new TextEncoder().encode(data);
        yield* this.#deliver(chunk, { ...after, offset: after.offset - output.held.length });
        if (this.#ended) return;
      }
    }
  }

  // Once the following was ended nothing is handed out, nor counted. The cursor is kept when the consumer asks for
  // more: a page that is left in between gets the chunk again.
  async *#deliver(chunk, position) {
    if (this.#ended) return;
    this.#position = position;
    const { onChunk } = this.#options;
    if (chunk.length && !onChunk) yield chunk;
    if (chunk.length && onChunk) {
      try {
        await onChunk(chunk, this.cursor);
      } catch (error) {
        this.#abort(error);
        tell(() => { throw error; });
      }
    }
    if (!this.#ended) this.#save();
  }

  #pieces(response) {
    const reader = response.body.getReader();
    return () => this.#waitFor(() => reader.read(), true);
  }

  // What `make` promises, unless nothing is heard for `timeout`: then the connection is given up.
  async #waitFor(make, connected = false) {
    if (!connected) this.#connection = new AbortController();
    const { signal } = this.#connection;
    this.#heard = Date.now();
    const timer = setTimeout(() => this.#cut("nothing was heard for too long"), limited(this.#options.timeout));
    try {
      return await make(signal);
    } catch (error) {
      throw signal.aborted && signal.reason instanceof Broken ? signal.reason : error;
    } finally {
      clearTimeout(timer);
      this.#heard = 0;
    }
  }

  #cut(reason) {
    this.#connection?.abort(new Broken(reason));
  }

  #pause(delay, asked) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#ended ? 0 : limited(delay));
      this.#wake = (ended = false) => {
        if (asked && !ended) return; // the server has said when
        clearTimeout(timer);
        resolve();
      };
    }).finally(() => { this.#wake = null; });
  }

  async #fetch(url, init) {
    const { headers, credentials, fetch } = this.#options;
    const own = typeof headers === "function" ? await headers() : headers;
    return fetch(url, { ...init, ...(own && { headers: own }), ...(credentials && { credentials }) });
  }

  // A network that is back, or a tab that is awake, need not wait for a timer; and no connection outlives either.
  #watch() {
    let away = false;
    const awake = () => {
      if (globalThis.document?.visibilityState === "hidden") return;
      this.#wake?.();
      // By the wall clock, as others stand still while a machine sleeps. Should it be set, this connects once more.
      if (this.#heard && Date.now() - this.#heard > this.#options.timeout) this.#cut("the page was asleep");
    };
    this.#listen(globalThis, "offline", () => { away = true; });
    this.#listen(globalThis, "online", () => {
      if (away && this.#heard) this.#cut("the network changed");
      away = false;
      this.#wake?.();
    });
    this.#listen(globalThis, "pageshow", awake);
    this.#listen(globalThis.document, "visibilitychange", awake);
    this.#listen(globalThis.document, "resume", awake);
  }

  #listen(target, name, listener) {
    if (this.#ended || !target?.addEventListener) return;
    target.addEventListener(name, listener);
    this.#release.push(() => target.removeEventListener(name, listener));
  }

  #status(state, more = {}) {
    if (!this.#ended) tell(this.#options.onStatus, { state, cursor: this.cursor, ...more });
  }

  #abort(cause) {
    this.#end("aborted", cause === undefined ? {} : { error: message(cause), cause });
  }

  // The first ending is the ending. Returns false, for those who ask whether to go on.
  #end(status, more = {}) {
    if (this.#ended) return false;
    this.#ended = { status, cursor: this.cursor, ...more };
    for (const release of this.#release) release();
    if (status === "lost") this.#storage((storage) => storage.removeItem(this.#options.storageKey));
    else if (status !== "aborted") this.#save();
    this.#connection?.abort();
    this.#wake?.(true);
    this.#resolve(this.#ended);
    tell(this.#options.onEnding, this.#ended);
    return false;
  }

  #save() {
    if (this.#position) this.#storage((storage) => storage.setItem(this.#options.storageKey, this.cursor));
  }

  // In a private window there may be no storage, or none that takes anything: then a reload begins anew.
  #storage(use) {
    if (this.#options.storageKey == null) return null;
    try {
      return use(this.#options.storage ?? globalThis.sessionStorage);
    } catch {
      return null;
    }
  }
}
