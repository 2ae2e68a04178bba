// Answers questions about the npm clients, one JSON object a line: {"ask": SCENARIO, "url": STREAM} -> {"value": …}.
// A scenario does what an application would, and tells what it saw. The tests say what it should have been.
import { createInterface } from "node:readline";
import { DurableStream, IdempotentProducer, StaleEpochError, stream } from "@durable-streams/client";
import {
  durableStreamConnection, materializeSnapshotFromDurableStream, toDurableChatSessionResponse, toDurableStreamResponse,
} from "@durable-streams/tanstack-ai-transport";

const json = { contentType: "application/json", warnOnHttp: false };
const bytes = { contentType: "application/octet-stream", warnOnHttp: false };
const impatient = { initialDelay: 50, maxDelay: 200, multiplier: 2, maxRetries: 20 };

const create = (url, options = json) => DurableStream.create({ url, ...options });
const stored = async (url) => (await stream({ url, live: false, warnOnHttp: false })).json();
const failure = (error) => ({ name: error.name, status: error.status, code: error.code, epoch: error.currentEpoch });
async function all(source) {  // up to its end; json(), text() and body() stop at the tail, also of what is live
  const found = [];
  for await (const item of source) found.push(item);
  return found;
}
async function failing(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return failure(error);
  }
}
const numbered = (count, from = 0) => Array.from({ length: count }, (_, number) => ({ number: from + number }));

// Takes messages until `enough` of them are there, whatever the client does meanwhile.
async function take(url, live, enough, options = {}) {
  const items = [], requests = [];
  const stop = new AbortController();
  const fetching = async (input, init) => {
    requests.push(new URL(input.url ?? input).searchParams.get("live"));
    return fetch(input, init);
  };
  const response = await stream({
    url, live, json: true, signal: stop.signal, fetch: fetching, warnOnHttp: false, backoffOptions: impatient,
    sseResilience: { logWarnings: false }, ...options,
  });
  await new Promise((resolve, reject) => {
    response.subscribeJson((batch) => {
      items.push(...batch.items);
      if (items.length >= enough) resolve();
    });
    response.closed.catch(reject);
  });
  stop.abort();  // `closed` may stay pending for ever when that falls between two requests
  return { items, requests };
}

const scenarios = {
  async batching({ url }) {
    const made = await create(url);
    await Promise.all(numbered(200).map((item) => made.append(JSON.stringify(item))));
    return stored(url);
  },

  // 500 appends through many requests at once, then a close with a last message
  async producer({ url }) {
    const made = await create(url);
    const producer = new IdempotentProducer(made, "writer", { maxBatchBytes: 200, lingerMs: 1, maxInFlight: 5 });
    for (const item of numbered(500)) producer.append(JSON.stringify(item));
    await producer.flush();
    const last = producer.lastSuccessfulOffset;
    const { finalOffset } = await producer.close(JSON.stringify({ number: 500 }));
    const head = await made.head();
    return { items: await stored(url), last, finalOffset, tail: head.offset, closed: head.streamClosed, sent: producer.nextSeq };
  },

  // An older epoch is refused from the moment that a newer one has written; with autoClaim it takes the next one
  async fencing({ url }) {
    const made = await create(url);
    const errors = [];
    const old = new IdempotentProducer(made, "writer", { lingerMs: 0, onError: (error) => errors.push(error) });
    old.append(JSON.stringify({ by: "old" }));
    await old.flush();
    const next = new IdempotentProducer(made, "writer", { epoch: 1, lingerMs: 0 });
    next.append(JSON.stringify({ by: "next" }));
    await next.flush();
    old.append(JSON.stringify({ by: "zombie" }));
    await old.flush().catch((error) => errors.push(error));
    const claiming = new IdempotentProducer(made, "writer", { epoch: 0, autoClaim: true, lingerMs: 0 });
    claiming.append(JSON.stringify({ by: "same seq, taken for a repeat" }));  // the protocol's trap: 0 < 1 is claimed
    await claiming.flush();
    return {
      errors: errors.map(failure), stale: errors.some((error) => error instanceof StaleEpochError),
      items: await stored(url), epoch: claiming.epoch,
    };
  },

  // Reads `count` messages live, in each of the modes, while another handle appends them over `seconds`
  async live({ url, modes, count, seconds }) {
    const made = await create(url);
    const reading = Promise.all(modes.map((mode) => take(url, mode, count)));
    for (const item of numbered(count)) {
      await made.append(JSON.stringify(item));
      await new Promise((resolve) => setTimeout(resolve, (seconds * 1000) / count));
    }
    return reading;
  },

  async until_closed({ url, mode }) {
    const made = await create(url);
    const response = await stream({ url, live: mode, warnOnHttp: false });
    const reading = all(response.jsonStream());
    for (const item of numbered(5)) await made.append(JSON.stringify(item));
    await made.close({ body: JSON.stringify({ number: 5 }) });
    const refused = await failing(made.append(JSON.stringify({ number: 6 })));
    const again = await made.close();
    const items = await reading;
    return { items, closed: response.streamClosed, offset: response.offset, refused, again: again.finalOffset };
  },

  async resume({ url }) {
    const made = await create(url);
    for (const item of numbered(10)) await made.append(JSON.stringify(item));
    const response = await stream({ url, live: false, warnOnHttp: false });
    const first = await response.json();
    await made.append(JSON.stringify({ number: 10 }));
    const rest = await take(url, "long-poll", 1, { offset: response.offset });
    return { first: first.length, rest: rest.items };
  },

  async writable({ url }) {
    const made = await create(url, { ...bytes, contentType: "text/plain" });
    const source = new ReadableStream({
      start(controller) {
        for (const word of ["a ", " b", "\n", "ü"]) controller.enqueue(word);
        controller.close();
      },
    });
    await source.pipeTo(made.writable());
    const head = await made.head();
    return { text: await (await stream({ url, live: false, warnOnHttp: false })).text(), closed: head.streamClosed };
  },

  async append_stream({ url }) {
    const made = await create(url, { ...bytes, contentType: "text/plain" });
    async function* source() { for (const word of ["one ", "two ", "three"]) yield word; }
    await made.appendStream(source());
    return (await stream({ url, live: false, warnOnHttp: false })).text();
  },

  // Every value of a byte, then read live as events, where they are base64
  async binary({ url }) {
    const made = await create(url, bytes);
    await made.append(Uint8Array.from({ length: 256 }, (_, value) => value));
    await made.append(new Uint8Array([255, 0, 255]));
    await made.close();
    const whole = await (await stream({ url, live: false, warnOnHttp: false })).body();
    const live = [];
    const response = await stream({ url, live: "sse", warnOnHttp: false });
    for (const chunk of await all(response.bodyStream())) live.push(...chunk);
    return { whole: [...whole], live };
  },

  async text({ url, pieces }) {
    const made = await create(url, { ...bytes, contentType: "text/plain", batching: false });
    const begun = Date.now(), requests = [];
    const fetching = async (input, init) => {
      const asked = new URL(input.url ?? input).search, at = Date.now() - begun;
      const response = await fetch(input, init);
      requests.push([at, asked, Date.now() - begun, response.status, response.headers.get("content-type")]);
      return response;
    };
    const reading = stream({ url, live: "sse", warnOnHttp: false, fetch: fetching })
      .then((response) => all(response.textStream()));
    for (const piece of pieces) await made.append(Uint8Array.from(Buffer.from(piece, "base64")));
    await made.close();
    const closed = Date.now() - begun;
    return { text: (await reading).join(""), requests, closed, read: Date.now() - begun };
  },

  async gone({ url }) {
    const made = await create(url);
    await made.append(JSON.stringify({ number: 0 }));
    const { offset } = await made.head();
    await made.delete();
    const deleted = await failing(stream({ url, offset, live: false, warnOnHttp: false }));
    await create(url);
    const anew = {};
    for (const live of [false, "long-poll", "sse"]) {
      anew[live] = await failing(stream({ url, offset, live, warnOnHttp: false }).then((found) => found.json()));
    }
    return { deleted, anew };
  },

  // A stream that a producer of the library's own has ended otherwise than well
  async incomplete({ url }) {
    const found = {};
    for (const live of ["long-poll", "sse"]) {
      const response = await stream({ url, live, warnOnHttp: false, sseResilience: { logWarnings: false } });
      let text = "";
      response.subscribeText((chunk) => { text += chunk.text; });
      found[live] = { ...(await failing(response.closed)), text };
    }
    return found;
  },

  // What a TanStack AI route and its page do: the answer goes into a stream, the page reads that
  async tanstack({ url }) {
    async function* answer() {
      yield { type: "TEXT_MESSAGE_START", messageId: "m", role: "assistant" };
      for (const delta of ["Hello", " ", "world"]) yield { type: "TEXT_MESSAGE_CONTENT", messageId: "m", delta };
      yield { type: "TEXT_MESSAGE_END", messageId: "m" };
    }
    const run = await toDurableStreamResponse(answer(), { stream: { writeUrl: `${url}-run` }, mode: "await" });
    const chunks = await (await stream({ url: `${url}-run`, live: "sse", warnOnHttp: false })).json();

    const target = { writeUrl: `${url}-session`, createIfMissing: true };
    const newMessages = [{ id: "u", role: "user", parts: [{ type: "text", content: "hi" }] }];
    const session = await toDurableChatSessionResponse({
      stream: target, newMessages, responseStream: answer(), mode: "await",
    });
    const { messages } = await materializeSnapshotFromDurableStream({ readUrl: target.writeUrl });
    const connection = durableStreamConnection({ sendUrl: target.writeUrl });
    const stop = new AbortController();
    const seen = [];
    for await (const chunk of connection.subscribe(stop.signal)) {
      seen.push(chunk);
      if (seen.length === 1) {  // the snapshot; another answer comes live, into a stream that is there already
        await toDurableChatSessionResponse({ stream: target, newMessages: [], responseStream: answer(), mode: "await" });
      }
      if (chunk.type === "TEXT_MESSAGE_END") break;
    }
    stop.abort();
    return { run: run.status, chunks, session: session.status, messages, seen };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const request = JSON.parse(line);
    answer = { value: (await scenarios[request.ask](request)) ?? null };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
