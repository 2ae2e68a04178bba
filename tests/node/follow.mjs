// node follow.mjs CLIENT: follows streams with the file CLIENT, resumable.js, one JSON request and answer per line.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { recorder } from "./followed.mjs";

// Not by its path: no package.json beside it says that it is a module, and older Nodes do not see that.
const source = await readFile(process.argv[2], "base64");
const client = recorder(await import(`data:text/javascript;base64,${source}`));
process.on("uncaughtException", () => {}); // what a page's callback raises is told so

for await (const line of createInterface({ input: process.stdin })) {
  const { ask, given } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: (await client[ask](...given)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.stack) }));
  }
}
process.exit(0); // what is followed yet is given up
