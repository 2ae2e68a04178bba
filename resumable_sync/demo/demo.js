// The page's own viewer is resumable.js, the package's client; here a connection can be cut by hand, and it is shown.
// The second viewer is a plain EventSource: the browser does the same by itself.

import { follow } from "./resumable.js";

const byId = (id) => document.getElementById(id);
const address = (id, action = "") => `answers/${encodeURIComponent(id)}${action}`;
const number = new Intl.NumberFormat("en");
const ENDINGS = { done: "done", error: "error", cancelled: "stopped", interrupted: "interrupted", lost: "lost" };
const UNKNOWN = { status: "lost", error: "no such stream" }; // where there never was one
const TIMEOUT_MILLISECONDS = 15_000; // five heartbeats of the server
let expectedBytes = new Map(); // by stream id, from the list

class Panel {
  constructor(name) {
    this.text = byId(`${name}-text`);
    this.pill = byId(`${name}-status`);
    this.bar = byId(`${name}-progress`);
    this.facts = byId(`${name}-facts`);
    this.follows = true; // the end of the text, until the reader scrolls up
    this.text.onscroll = () => {
      this.follows = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
    };
  }

  clear() {
    this.text.replaceChildren();
    this.tail = null;
    this.follows = true;
    this.note = "";
  }

  status(kind, label) {
    this.pill.dataset.status = kind;
    this.pill.textContent = label;
  }

  append(text, caughtUp) {
    if (!this.tail || this.tailCaughtUp !== caughtUp) {
      this.tail = document.createTextNode("");
      this.tailCaughtUp = caughtUp;
      if (caughtUp) {
        const mark = document.createElement("span");
        mark.className = "caught";
        mark.append(this.tail);
        this.text.append(mark);
      } else {
        this.text.append(this.tail);
      }
    }
    this.tail.appendData(text);
    if (this.follows) this.text.scrollTop = this.text.scrollHeight;
  }

  mark(title) { // a place between two words
    if (!this.text.hasChildNodes()) return;
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.title = title;
    this.text.append(mark);
    this.tail = null;
  }

  position(id, cursor) {
    const received = Number((cursor || "-0").split("-")[1]);
    const expected = expectedBytes.get(id);
    if (expected) {
      this.bar.max = expected;
      this.bar.value = received;
    } else {
      this.bar.max = 1;
      this.bar.value = this.pill.dataset.status === "done" ? 1 : 0;
    }
    const of = expected ? ` of ${number.format(expected)}` : "";
    this.facts.textContent = `${number.format(received)}${of} bytes · cursor ${cursor || "at the start"}${this.note}`;
  }
}

class ClientViewer {
  constructor(panel, changed) {
    this.panel = panel;
    this.changed = changed;
    this.state = "idle"; // idle, open, dropped, ended
    this.stream = null;
  }

  begin(id, start) {
    this.disconnect();
    this.id = id;
    this.cursor = "";
    this.panel.clear();
    this.reconnect(start);
  }

  drop() {
    this.disconnect();
    this.state = "dropped";
    this.panel.status("dropped", "connection dropped");
    this.changed();
  }

  disconnect() {
    if (this.stream) this.stream.close();
  }

  // Follows until the stream has ended, whatever happens to the connection.
  reconnect(start = false) {
    this.state = "open";
    this.changed();
    let live = start;
    let resumed = this.cursor !== "";
    if (resumed) this.panel.mark("the connection was cut here");
    this.panel.status("replay", start ? "starting" : "catching up");
    this.stream = follow(address(this.id), {
      method: start ? "POST" : "GET",
      cursor: this.cursor || undefined,
      cancelUrl: address(this.id, "/cancel"),
      encoding: "json",
      timeout: TIMEOUT_MILLISECONDS,
      maxRetryDelay: 2000,
      onStatus: ({ state, attempt }) => {
        if (state === "waiting") {
          if (attempt === 1) this.panel.mark("the connection was cut here");
          resumed = this.cursor !== "";
          live = false;
          this.panel.status("retrying", "reconnecting");
        } else if (state === "replaying") {
          if (!live) this.panel.status("replay", "catching up");
        } else if (state === "live") {
          if (!live) this.panel.mark("from here on live");
          live = true;
          this.panel.status("streaming", "live");
        }
      },
      onChunk: (text, cursor) => {
        this.cursor = cursor;
        this.panel.append(text, resumed && !live);
        this.panel.position(this.id, cursor);
      },
      onEnding: (ending) => {
        if (ending.status !== "aborted") this.end(ending.status === "missing" ? UNKNOWN : ending);
      },
    });
  }

  // Ask the server to stop the stream; whoever has dropped the connection fetches how it ended.
  async stop() {
    await this.stream.cancel().catch(() => {}); // the connection itself shows that the server is away
    if (this.state === "dropped") this.reconnect();
  }

  end({ status, error }) {
    this.state = "ended";
    this.panel.note = error ? ` · ${error}` : "";
    this.panel.status(status, ENDINGS[status] || status);
    this.panel.position(this.id, this.cursor);
    this.changed();
  }
}

class SourceViewer {
  constructor(panel) { this.panel = panel; }

  begin(id) {
    this.close();
    this.panel.clear();
    this.panel.status("replay", "catching up");
    let catchingUp = false; // after a cut
    let cursor = "";
    const source = this.source = new EventSource(address(id));
    const told = () => this.panel.position(id, cursor);
    source.onmessage = (event) => {
      cursor = event.lastEventId;
      this.panel.append(JSON.parse(event.data), catchingUp);
      told();
    };
    source.addEventListener("live", () => {
      catchingUp = false;
      this.panel.mark("from here on live");
      this.panel.status("streaming", "live");
    });
    source.addEventListener("end", (event) => {
      const ending = JSON.parse(event.data);
      source.close();
      this.panel.status(ending.status, ENDINGS[ending.status] || ending.status);
      told();
    });
    source.onerror = () => {
      if (!catchingUp) this.panel.mark("the connection was cut here");
      catchingUp = true;
      if (source.readyState === EventSource.CLOSED) this.panel.status("lost", "no longer there");
      else this.panel.status("retrying", "reconnecting");
    };
    told();
  }

  close() { if (this.source) this.source.close(); }
}

const first = new ClientViewer(new Panel("first"), showButtons);
const second = new SourceViewer(new Panel("second"));

function showButtons() {
  const running = first.state === "open" || first.state === "dropped";
  byId("drop").disabled = !running;
  byId("drop").textContent = first.state === "dropped" ? "Reconnect" : "Drop connection";
  byId("second").disabled = !first.id;
  byId("stop").disabled = !running;
}

function show(id, start = false) {
  localStorage.setItem("answer", id);
  if (location.hash !== `#${id}`) history.replaceState(null, "", `#${id}`);
  byId("first-title").textContent = id;
  showSecond(false);
  first.begin(id, start);
  list();
}

function showSecond(shown) {
  byId("second-panel").hidden = !shown;
  byId("second").setAttribute("aria-expanded", shown);
  byId("second").textContent = shown ? "Close second viewer" : "Second viewer";
  if (shown) second.begin(first.id);
  else second.close();
}

byId("start").onclick = () => {
  const random = [...crypto.getRandomValues(new Uint8Array(4))].map((byte) => byte.toString(16).padStart(2, "0"));
  show(`answer-${random.join("")}`, true);
};
byId("drop").onclick = () => (first.state === "dropped" ? first.reconnect() : first.drop());
byId("second").onclick = () => showSecond(byId("second-panel").hidden);
byId("stop").onclick = async () => {
  await first.stop();
  list();
};
window.onhashchange = () => {
  const id = location.hash.slice(1);
  if (id && id !== first.id) show(id);
};

let listing = false;
async function list() {
  if (listing) return;
  listing = true;
  try {
    const response = await fetch("streams/list.json?order=newest", { cache: "no-store" });
    if (!response.ok) throw new Error(`${response.status}`);
    // Those of the chat have a page of their own.
    const streams = (await response.json()).streams.filter((stream) => !("assistant-chat" in stream.metadata));
    for (const stream of streams) stream.expected = Number(stream.metadata["expected-bytes"]) || null;
    byId("offline").hidden = true;
    expectedBytes = new Map(streams.filter((stream) => stream.expected).map((stream) => [stream.id, stream.expected]));
    byId("no-streams").hidden = streams.length > 0;
    const items = byId("streams");
    const known = new Map([...items.children].map((item) => [item.dataset.id, item]));
    streams.forEach((stream, place) => {
      const item = known.get(stream.id) || makeItem(stream.id);
      known.delete(stream.id);
      if (items.children[place] !== item) items.insertBefore(item, items.children[place] || null);
      fill(item, stream);
    });
    known.forEach((item) => item.remove());
  } catch (error) {
    byId("offline").hidden = false;
  }
  listing = false;
}

function makeItem(id) {
  const item = document.createElement("li");
  item.dataset.id = id;
  item.innerHTML = `<div class="row"><a></a><span class="pill"></span></div><progress max="1" value="0"></progress>
    <div class="row"><small></small><button class="remove">Delete</button></div>`;
  const link = item.querySelector("a");
  link.textContent = id;
  link.href = `#${id}`;
  item.querySelector("progress").setAttribute("aria-label", `Stored of ${id}`);
  const remove = item.querySelector("button");
  remove.setAttribute("aria-label", `Delete ${id}`);
  remove.onclick = async () => {
    await fetch(address(id), { method: "DELETE" }).catch(() => {});
    list();
  };
  return item;
}

function fill(item, stream) {
  item.classList.toggle("current", stream.id === first.id);
  const pill = item.querySelector(".pill");
  pill.dataset.status = stream.status;
  pill.textContent = ENDINGS[stream.status] || "running";
  const bar = item.querySelector("progress");
  bar.hidden = !stream.expected;
  bar.max = stream.expected || 1;
  bar.value = stream.size;
  const share = stream.expected ? ` · ${Math.floor((100 * stream.size) / stream.expected)}%` : "";
  item.querySelector("small").textContent = `${number.format(stream.size)} bytes${share}`;
}

setInterval(() => { if (!document.hidden) list(); }, 1000);
showButtons();
await list();
const wanted = location.hash.slice(1) || localStorage.getItem("answer");
if (wanted && !first.id) show(wanted);
