// Plays applications with HttpAgent: one JSON request per line, one JSON answer per line. An agent is what one page has.
import { createInterface } from "node:readline";

console.warn = console.error = console.debug = () => {}; // stdout is for answers

const CLIENTS = {
  "1.0.0": await import("@ag-ui/client"),
  "0.0.59": await import("@ag-ui/client-0.0.59"),
};

const agentOf = ({ HttpAgent, runHttpRequest, transformHttpEventStream }) =>
  class extends HttpAgent {
    // As the endpoints' documentation shows it.
    connect(input) {
      const ask = () => this.fetch(`${this.url}/connect`, this.requestInit(input));
      return transformHttpEventStream(runHttpRequest(ask));
    }
  };

const agents = {};
const runs = {};

// Follows a run: its events, how it ended, and which tools an application would run, by each of the ways that it has.
const follow = (agent, start) => {
  const run = { events: [], failed: null, told: null, ended: [], pending: null, outcome: null, over: false };
  const subscriber = {
    onEvent: ({ event }) => { run.events.push(structuredClone(event)); },
    onRunErrorEvent: ({ event }) => { run.told = { message: event.message, code: event.code ?? null }; },
    onRunFailed: ({ error }) => { run.failed = String(error); },
    onToolCallEndEvent: ({ event, toolCallArgs, messages }) => {
      const answered = messages.some((message) => message.toolCallId === event.toolCallId);
      if (!answered) run.ended.push([event.toolCallId, toolCallArgs]);
    },
    onRunFinishedEvent: ({ outcome, pendingToolCallIds }) => {
      run.outcome = outcome ?? null;
      run.pending = pendingToolCallIds ?? null;
    },
  };
  run.done = start(subscriber)
    .then(({ newMessages }) => { run.newMessages = newMessages; })
    .catch((error) => { run.failed ??= String(error); })
    .finally(() => {
      run.over = true;
      run.messages = structuredClone(agent.messages);
      run.state = structuredClone(agent.state);
      run.interrupts = structuredClone(agent.pendingInterrupts ?? []);
    });
  return run;
};

const report = ({ done, over, events, ...rest }) => ({ ...rest, types: events.map(({ type }) => type) });

const answers = {
  open: async ({ name, version, url, threadId, messages, state }) => {
    const Agent = agentOf(CLIENTS[version]);
    agents[name] = new Agent({ url, threadId, initialMessages: messages ?? [], initialState: state ?? {} });
  },
  // What the application does between runs.
  say: async ({ name, message }) => agents[name].addMessage(message),
  // As CopilotKit does before it connects.
  clear: async ({ name }) => {
    agents[name].setMessages([]);
    agents[name].setState({});
  },
  run: async ({ name, run, parameters }) => {
    runs[run] = follow(agents[name], (subscriber) => agents[name].runAgent(parameters, subscriber));
  },
  connect: async ({ name, run, parameters }) => {
    runs[run] = follow(agents[name], (subscriber) => agents[name].connectAgent(parameters, subscriber));
  },
  abort: async ({ name }) => agents[name].abortRun(),
  // Waits until a run has seen an event of this type.
  reached: async ({ run, type, seconds }) => {
    const deadline = Date.now() + 1000 * seconds;
    while (!runs[run].events.some((event) => event.type === type)) {
      if (Date.now() > deadline || runs[run].over) throw new Error(JSON.stringify(report(runs[run])));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  },
  finish: async ({ run }) => {
    await runs[run].done;
    return report(runs[run]);
  },
};

const answer = async (line) => {
  const { ask, ...request } = JSON.parse(line);
  try {
    return { value: await answers[ask](request) };
  } catch (error) {
    return { error: String(error) };
  }
};

process.on("unhandledRejection", () => {}); // what a reader that was cut off says once more

for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(JSON.stringify(await answer(line)) + "\n");
process.exit(0);
