// node bundle.mjs ENTRY OUTFILE [VERSION]: the page's script with all that it imports. In it, `sdk` and `sdk-react`
// are the AI SDK of that version.
import { build } from "esbuild";

const [entry, outfile, version = "7"] = process.argv.slice(2);
await build({
  entryPoints: [entry], outfile, bundle: true, format: "iife", logLevel: "error",
  alias: { "sdk": `ai${version}`, "sdk-react": `ai${version}-react` },
  define: { "process.env.NODE_ENV": '"production"' },
});
