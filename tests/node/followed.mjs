// What the tests of resumable.js see of it, in Node and on a page alike: streams by name, what each has received and was told.
export const recorder = ({ follow, StreamEndedError }) => {
  const records = new Map();
  const encode = (text) => new TextEncoder().encode(text);
  const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

  // The options are JSON; `mode`, `keep` and `storage` are for here. Iterated, chunks come at `pull`, or all of them.
  const start = (name, url, { mode = "iterate", keep = false, storage, ...options }) => {
    const controller = new AbortController();
    const record = { chunks: [], endings: [], statuses: [], thrown: null, returned: false, values: [], controller };
    if (keep) record.chunks = JSON.parse(sessionStorage.getItem(`kept-${name}`) ?? "[]");
    records.set(name, record);
    const take = (chunk, cursor) => {
      record.chunks.push(base64(typeof chunk === "string" ? encode(chunk) : chunk));
      record.kind = typeof chunk;
      record.cursor = cursor;
      if (keep) sessionStorage.setItem(`kept-${name}`, JSON.stringify(record.chunks));
      if (mode === "raise") throw new Error("the page's own");
    };
    const refuse = () => { throw new DOMException("no storage here", "SecurityError"); };
    const stream = follow(url, {
      ...options,
      ...(mode === "push" || mode === "raise" ? { onChunk: take } : {}),
      ...(storage === "none" ? { storage: { getItem: refuse, setItem: refuse, removeItem: refuse } } : {}),
      signal: controller.signal,
      onEnding: (ending) => record.endings.push(ending),
      onStatus: (status) => {
        record.statuses.push(status);
        if (mode === "hasty") record.stream.close();
      },
    });
    record.stream = stream;
    stream.ending.then((ending) => record.values.push(ending));
    if (mode === "iterate" || mode === "hasty") record.running = pull(name, Infinity);
  };

  const pull = async (name, count) => {
    const record = records.get(name);
    record.iterator ??= record.stream[Symbol.asyncIterator]();
    try {
      for (let pulled = 0; pulled < count; pulled += 1) {
        const { value, done } = await record.iterator.next();
        if (done) {
          record.returned = true;
          return;
        }
        record.chunks.push(base64(typeof value === "string" ? encode(value) : value));
        record.kind = typeof value;
        record.cursor = record.stream.cursor;
      }
    } catch (error) {
      record.thrown = error instanceof StreamEndedError ? error.ending.status : String(error);
    }
  };

  const act = async (name, what, ...given) => {
    const { stream, controller, iterator } = records.get(name);
    if (what === "pull") await pull(name, ...given);
    else if (what === "break") await iterator.return();
    else if (what === "abort") controller.abort();
    else if (what === "cancel") await stream.cancel();
    else stream.close();
  };

  const seen = (name) => {
    const { chunks, endings, statuses, thrown, returned, values, kind = null, cursor = null, stream } = records.get(name);
    const plain = ({ cause, ...ending }) => ending;
    return {
      chunks, statuses, thrown, returned, kind, cursor, at: stream.cursor,
      endings: endings.map(plain), values: values.map(plain),
    };
  };

  return { start, act, seen };
};
