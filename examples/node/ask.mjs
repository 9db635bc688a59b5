// node ask.mjs "What is MQTT?"
//
// Where: INFERBUS_BROKER (mqtt://, mqtts://, ws://, wss://), INFERBUS_PROJECT, INFERBUS_USERNAME and INFERBUS_PASSWORD in
// the environment; NODE_EXTRA_CA_CERTS for an authority of one's own. INFERBUS_TIMEOUT is in seconds.
// Exit status: 0 answered, 1 refused, 2 usage, 3 no broker, 4 busy until the time was over, 5 no answer in time,
// 130 cancelled with Ctrl-C.
import { Inferbus, RequestFailed, TimedOut } from "./inferbus.mjs";

const [message, session] = process.argv.slice(2);
const { INFERBUS_BROKER: url = "mqtt://127.0.0.1:1883", INFERBUS_PROJECT: project } = process.env;
const { INFERBUS_USERNAME: username, INFERBUS_PASSWORD: password, INFERBUS_TIMEOUT: timeout = "60" } = process.env;

/** What a model writes is a stranger's text: a terminal shows it, and obeys nothing in it. */
const asText = (text) => text.replace(/[^\P{Cc}\n\t]/gu, "");

function exitStatus(failure) {
  if (failure instanceof TimedOut || failure.code === "deadline_exceeded") return 5;
  if (failure.code === "cancelled" || failure.name === "AbortError") return 130;
  if (failure instanceof RequestFailed) return failure.retryable ? 4 : 1;
  throw failure;
}

async function ask(bus) {
  const interrupted = new AbortController();
  process.once("SIGINT", () => interrupted.abort());
  let shown = "";
  const onDelta = (text) => {
    if (text === null) {
      process.stdout.write(shown && "\n");
      shown = "";
    } else {
      shown += text;
      process.stdout.write(asText(text));
    }
  };
  const options = { session, timeoutMs: Number(timeout) * 1000, onDelta, signal: interrupted.signal };
  try {
    const { text } = await bus.ask(message, options);
    // Where a delta was lost, `done` has the whole text anyway.
    process.stdout.write(asText(text.startsWith(shown) ? text.slice(shown.length) : `\n${text}`) + "\n");
    return 0;
  } catch (failure) {
    console.error(`ask: ${asText(failure.message)}`);
    return exitStatus(failure);
  } finally {
    await bus.close();
  }
}

function wrong() {
  if (message === undefined) return 'usage: node ask.mjs "MESSAGE" [SESSION]';
  if (!(Number(timeout) > 0)) return `ask: INFERBUS_TIMEOUT: not a number of seconds: ${timeout}`;
  // The refusal of such a session would go to another one's topic, where nobody here listens.
  if (session && !/^[A-Za-z0-9_.:-]{1,128}$/.test(session)) return `ask: not a session's id: ${session}`;
  return null;
}

if (wrong() !== null) {
  console.error(asText(wrong()));
  process.exitCode = 2;
} else {
  try {
    process.exitCode = await ask(await Inferbus.connect(url, { project, username, password }));
  } catch (error) {
    console.error(`ask: ${url}: ${error.message}`);
    process.exitCode = 3;
  }
}
