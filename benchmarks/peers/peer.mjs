// The peers on Node: `node peer.mjs PROGRAM JOB`, with the same programs, chunks and figures as benchmarks/programs.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const [, , program, text] = process.argv;
const job = JSON.parse(text);
const WARM_UP_CHUNKS = 20;
const encoder = new TextEncoder();

async function client() {
  if (job.store === "redis") {
    const { createClient } = await import("redis");
    const made = createClient({ socket: { path: job.redis } });
    await made.connect();
    return made;
  }
  const { default: Redis } = await import("ioredis");
  return new Redis(job.redis);
}

const clients = [];
async function connect() {
  const made = await client();
  clients.push(made);
  return made;
}

// The two libraries behind one face: run(id, source), follow(id) -> async iterable of bytes, ended(count).
async function open() {
  let finished = 0;
  let check = () => {};
  const ended = (count) =>
    new Promise((resolve) => {
      check = () => finished >= count && resolve();
      check();
    });
  const finish = () => { finished += 1; check(); };
  if (job.library === "resumable-stream") {
    const { createResumableStreamContext } = await import("resumable-stream/ioredis");
    const context = createResumableStreamContext({
      waitUntil: (promise) => promise.then(finish),
      publisher: await connect(),
      subscriber: await connect(),
    });
    return {
      ended,
      run: async (id, source) => {
        const stream = await context.createNewResumableStream(id, () => source(true));
        (async () => { for await (const _ of stream); })(); // it is the reader of this stream that drives the source
      },
      follow: async (id) => context.resumeExistingStream(id),
    };
  }
  const { createInMemoryResumableStreamStore, createResumableStreamContext } =
    await import("assistant-stream/resumable");
  let store;
  if (job.store === "memory") store = createInMemoryResumableStreamStore();
  if (job.store === "ioredis") {
    const { createIoredisResumableStreamStore } = await import("assistant-stream/resumable/ioredis");
    store = createIoredisResumableStreamStore(await connect());
  }
  if (job.store === "redis") {
    const { createRedisResumableStreamStore } = await import("assistant-stream/resumable/redis");
    store = createRedisResumableStreamStore(await connect());
  }
  const context = createResumableStreamContext({ store, onFinalize: finish });
  return { ended, store, run: (id, source) => context.run(id, source), follow: (id) => context.requireResume(id) };
}

const chunk = (number) => encoder.encode(String(number).padStart(63, "0") + "\n");

function listSource(made) {
  return () => {
    let next = 0;
    return new ReadableStream({
      pull(controller) {
        if (next < made.length) controller.enqueue(made[next++]);
        else controller.close();
      },
    });
  };
}

class Stamped {
  constructor(number) {
    this.delay = (number / job.streams / job.rate) * 1000; // out of step with the others
    this.hash = createHash("sha256");
    this.begin = new Promise((resolve) => { this.go = resolve; });
  }
  source = (asText) => {
    let next = 0;
    let start;
    return new ReadableStream({
      pull: async (controller) => {
        await this.begin;
        start ??= performance.now() + this.delay;
        if (next === job.chunks) {
          controller.close();
          return;
        }
        const early = start + (next / job.rate) * 1000 - performance.now();
        if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
        const time = process.hrtime.bigint().toString().padStart(20, "0");
        const made = `${time} ${String(next++).padStart(42, "0")}\n`;
        this.hash.update(made);
        controller.enqueue(asText === true ? made : encoder.encode(made));
      },
    });
  };
}

class Arrivals {
  latencies = [];
  hash = createHash("sha256");
  async follow(stream) {
    for await (const piece of stream) {
      const now = process.hrtime.bigint();
      const data = Buffer.from(piece);
      for (let begin = 0; begin < data.length; begin += 64)
        this.latencies.push(Number(now - BigInt(data.toString("latin1", begin, begin + 20))));
      this.hash.update(data);
    }
  }
}

function latencyMetrics(arrivals) {
  const found = arrivals.flatMap((each) => each.latencies.slice(WARM_UP_CHUNKS)).map((ns) => ns / 1e6);
  found.sort((a, b) => a - b);
  const at = (share) => found[Math.min(found.length - 1, Math.floor(share * found.length))];
  return { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: found[found.length - 1] };
}

const digestOf = (parts) => {
  const all = createHash("sha256");
  for (const part of parts) all.update(part);
  return all.digest("hex");
};

const cpuSeconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

async function redisMeter() {
  if (job.store === "memory") return async () => ({});
  const { default: Redis } = await import("ioredis");
  const own = new Redis(job.redis);
  const look = async () =>
    Object.fromEntries((await own.info("all")).split("\r\n").map((line) => line.split(":")).map(([k, v]) => [k, +v]));
  const before = await look();
  return async () => {
    const after = await look();
    own.disconnect();
    return {
      redis_cpu_s: after.used_cpu_user + after.used_cpu_sys - before.used_cpu_user - before.used_cpu_sys,
      redis_commands: after.total_commands_processed - before.total_commands_processed - 1,
      connections: after.connected_clients - 1,
    };
  };
}

const say = (event) => console.log(JSON.stringify({ event }));
const go = () => new Promise((resolve) => createInterface({ input: process.stdin }).once("line", resolve));

function listOf(count) {
  return Array.from({ length: count }, (_, number) => chunk(number));
}

async function digestOfStream(library, id) {
  const hash = createHash("sha256");
  for await (const piece of await library.follow(id)) hash.update(piece);
  return hash.digest("hex");
}

const programs = {
  async append() {
    const made = listOf(job.chunks / job.streams);
    const library = await open();
    await library.run("warm-up", listSource(listOf(1000)));
    await library.ended(1);
    const cpu = cpuSeconds();
    const begin = performance.now();
    for (let number = 0; number < job.streams; number++) await library.run(`hot-${number}`, listSource(made));
    await library.ended(1 + job.streams);
    const seconds = (performance.now() - begin) / 1000;
    const metrics = {
      chunks_per_s: job.chunks / seconds,
      cpu_us_per_chunk: ((cpuSeconds() - cpu) / job.chunks) * 1e6,
    };
    return { metrics, sha256: await digestOfStream(library, `hot-${job.streams - 1}`) };
  },

  async tail() {
    const library = await open();
    const sources = Array.from({ length: job.streams }, (_, number) => new Stamped(number));
    const arrivals = [];
    const followers = [];
    for (const [number, source] of sources.entries()) {
      await library.run(`live-${number}`, source.source);
      for (let viewer = 0; viewer < job.viewers; viewer++) {
        const arrived = new Arrivals();
        arrivals.push(arrived);
        followers.push(arrived.follow(await library.follow(`live-${number}`)));
      }
    }
    const meter = await redisMeter();
    const cpu = cpuSeconds();
    const begin = performance.now();
    for (const source of sources) source.go();
    await library.ended(sources.length);
    await Promise.all(followers);
    const metrics = { cpu_s: cpuSeconds() - cpu, seconds: (performance.now() - begin) / 1000, ...(await meter()) };
    const made = job.streams * job.chunks;
    if (metrics.redis_commands) metrics.commands_per_chunk = metrics.redis_commands / made;
    metrics.cpu_us_per_delivery = (metrics.cpu_s / (made * job.viewers)) * 1e6;
    const sent = sources.map((source) => source.hash.digest("hex"));
    for (const [place, arrived] of arrivals.entries())
      if (arrived.hash.digest("hex") !== sent[Math.floor(place / job.viewers)])
        throw new Error("a viewer got other bytes than were sent");
    return { metrics: { ...metrics, ...latencyMetrics(arrivals) }, delivered: digestOf(sent) };
  },

  async producer() {
    const library = await open();
    const sources = Array.from({ length: job.streams }, (_, number) => new Stamped(number));
    for (const [number, source] of sources.entries()) await library.run(`live-${number}`, source.source);
    say("begun");
    await go();
    const cpu = cpuSeconds();
    for (const source of sources) source.go();
    await library.ended(sources.length);
    const digests = sources.map((source) => source.hash.digest("hex"));
    return { metrics: { producer_cpu_s: cpuSeconds() - cpu }, sha256: digestOf(digests) };
  },

  async viewer() {
    const library = await open();
    const arrivals = Array.from({ length: job.streams }, () => new Arrivals());
    const followers = [];
    for (const [number, arrived] of arrivals.entries())
      followers.push(arrived.follow(await library.follow(`live-${number}`)));
    const meter = await redisMeter();
    const cpu = cpuSeconds();
    say("ready");
    await Promise.all(followers);
    const metrics = { cpu_s: cpuSeconds() - cpu, ...(await meter()), ...latencyMetrics(arrivals) };
    return { metrics, sha256: digestOf(arrivals.map((arrived) => arrived.hash.digest("hex"))) };
  },

  // Stores the stream for `read`; says what it stored.
  async fill() {
    const library = await open();
    await library.run("stored", listSource(listOf(job.chunks)));
    await library.ended(1);
    say("begun");
    await go();
    return { metrics: {}, sha256: await digestOfStream(library, "stored") };
  },

  async read() {
    const library = await open();
    if (job.store === "memory") {
      await library.run("stored", listSource(listOf(job.chunks)));
      await library.ended(1);
    }
    say("ready");
    const resident = process.memoryUsage.rss();
    const begin = performance.now();
    let first;
    let count = 0;
    for await (const piece of await library.follow("stored")) {
      first ??= performance.now() - begin;
      count += piece.length;
    }
    const seconds = (performance.now() - begin) / 1000;
    const peak = +/VmHWM:\s*(\d+)/.exec(readFileSync("/proc/self/status", "latin1"))[1] * 1024;
    const metrics = { chunks_per_s: count / 64 / seconds, first_byte_ms: first, peak_mib: (peak - resident) / 2 ** 20 };
    return { metrics, sha256: await digestOfStream(library, "stored") };
  },

  async election() {
    const library = await open();
    const times = [];
    const role = async (id) => {
      const begin = performance.now();
      await library.store.acquireLease(id);
      return performance.now() - begin;
    };
    for (let number = 0; number < 50; number++) await role(`warm-up-${number}`);
    for (let number = 0; number < job.elections; number++) times.push(await role(`stream-${number}`));
    times.sort((a, b) => a - b);
    const metrics = { p50_ms: times[times.length >> 1], p99_ms: times[Math.floor(times.length * 0.99)] };
    return { metrics };
  },

  // The reference server of Durable Streams, under the very client that measures ours.
  async durable() {
    const { DurableStreamTestServer } = await import("@durable-streams/server");
    const files = job.files ? { dataDir: job.directory } : {};
    const server = new DurableStreamTestServer({ host: "127.0.0.1", port: 0, ...files });
    const url = await server.start();
    const [command, ...args] = [...job.client, JSON.stringify({ ...job, port: Number(new URL(url).port) })];
    const client = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
    let out = "";
    for await (const piece of client.stdout) out += piece;
    return JSON.parse(out);
  },
};

console.log(JSON.stringify(await programs[program]()));
process.exit(0);
