"use strict";
// Follows one stream, as text or hex, and draws the list anew. Works with a policy that allows nothing inline.

const KEPT = 128 * 1024; // bytes of a stream on the page
const REFRESH_SECONDS = 2;

function follow(output) {
  const state = document.getElementById("state");
  let bytes = new Uint8Array(0);
  let begin = Number(output.dataset.begin); // of `bytes`, in the stream
  let mode = "";
  let asked = false; // a drawing is due

  const chosen = () => document.querySelector("input[name=mode]:checked").value;

  function draw() {
    asked = false;
    const atEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 8;
    output.classList.toggle("hex", chosen() === "hex");
    output.textContent = chosen() === "hex" ? hex(bytes, begin) : new TextDecoder().decode(bytes);
    if (atEnd) output.scrollTop = output.scrollHeight;
  }

  function drawSoon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  }

  function add(more) {
    if (!mode && more.length) {
      mode = looksBinary(more) ? "hex" : "text";
      document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
    }
    const left = Math.max(0, bytes.length + more.length - KEPT);
    const joined = new Uint8Array(bytes.length + more.length);
    joined.set(bytes);
    joined.set(more, bytes.length);
    bytes = joined.slice(left);
    begin += left;
    drawSoon();
  }

  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.addEventListener("change", () => { mode = chosen(); draw(); });
  }
  if ("over" in output.dataset) return;
  state.textContent = "connecting";
  const source = new EventSource(output.dataset.events);
  source.onopen = () => { state.textContent = "following"; };
  source.onmessage = (event) => add(Uint8Array.from(atob(event.data), (c) => c.charCodeAt(0)));
  source.addEventListener("live", () => { state.textContent = "live"; });
  source.addEventListener("end", (event) => {
    source.close();
    state.textContent = `ended: ${JSON.parse(event.data).status}`;
    state.dataset.ended = "";
  });
  source.onerror = () => {
    // EventSource tries again by itself, except where it was refused.
    state.textContent = source.readyState === EventSource.CLOSED ? "refused or gone; load the page again" : "reconnecting";
  };
}

function looksBinary(bytes) {
  if (bytes.includes(0)) return true;
  try {
    // The last character may be torn, and so may the first one, where the beginning is left out.
    new TextDecoder("utf-8", { fatal: true }).decode(bytes.slice(0, 512), { stream: true });
    return false;
  } catch {
    return !(bytes[0] >= 0x80 && bytes[0] < 0xc0 && bytes.slice(0, 64).some((byte) => byte < 0x80));
  }
}

function hex(bytes, begin) {
  const lines = [];
  const first = begin - (begin % 16); // lines begin at multiples of 16
  for (let at = first; at < begin + bytes.length; at += 16) {
    const cells = [];
    let shown = "";
    for (let offset = at; offset < at + 16; offset++) {
      const byte = bytes[offset - begin]; // undefined before the beginning and after the end
      cells.push(byte === undefined ? "  " : byte.toString(16).padStart(2, "0"));
      shown += byte === undefined ? " " : byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".";
    }
    lines.push(`${at.toString(16).padStart(8, "0")}  ${cells.slice(0, 8).join(" ")}  ${cells.slice(8).join(" ")}  ${shown}`);
  }
  return lines.join("\n");
}

function refresh(box) {
  const again = () => setTimeout(load, REFRESH_SECONDS * 1000);
  async function load() {
    if (!box.checked) return;
    try {
      const response = document.hidden ? null : await fetch(location.href, { credentials: "same-origin" });
      if (response && response.ok) {
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        document.getElementById("streams").replaceWith(page.getElementById("streams"));
      }
    } catch {
      // The server is away: the list stays as it is until it is back.
    }
    again();
  }
  box.addEventListener("change", load);
}

const output = document.getElementById("output");
if (output) follow(output);
const box = document.getElementById("refresh");
if (box) refresh(box);
