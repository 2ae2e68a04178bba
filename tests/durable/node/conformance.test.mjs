// The published conformance suite, against the server at DS_URL whose long-poll lasts DS_LONG_POLL_MS.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";

const { DS_URL, DS_LONG_POLL_MS } = process.env;
if (!DS_URL || !DS_LONG_POLL_MS) throw new Error("DS_URL and DS_LONG_POLL_MS are not set");
runConformanceTests({ baseUrl: DS_URL, longPollTimeoutMs: Number(DS_LONG_POLL_MS) });
