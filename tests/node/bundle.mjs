// node bundle.mjs ENTRY OUTFILE: the page's script with all that it imports.
import { build } from "esbuild";

const [entry, outfile] = process.argv.slice(2);
await build({
  entryPoints: [entry], outfile, bundle: true, format: "iife", logLevel: "error",
  define: { "process.env.NODE_ENV": '"production"' },
});
