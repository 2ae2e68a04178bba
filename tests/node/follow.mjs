// node follow.mjs CLIENT: follows streams with the file CLIENT, resumable.js, one JSON request and answer per line.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { recorder } from "./followed.mjs";

const client = recorder(await import(pathToFileURL(process.argv[2])));
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
