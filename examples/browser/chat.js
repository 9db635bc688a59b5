// A chat over MQTT in a page. Every reply is shown by `textContent`, never as markup: a model writes whatever it was
// talked into.
const QUERY = new URLSearchParams(location.search);
const PROJECT = QUERY.get("project") ?? "general";
const GIVE_UP_MS = 120_000;

const clientId = `browser-${randomId()}`;
const session = QUERY.get("session") ?? clientId; // whoever knows it can read along: it is a secret
const requests = `${PROJECT}/user_input/${session}`;
const replies = `${PROJECT}/assistant_response/${session}`;

const broker = document.getElementById("broker");
const question = document.getElementById("question");
const [talk, state, send, cancel] = ["talk", "state", "send", "cancel"].map((id) => document.getElementById(id));

let bus = null;
let asked = null; // the request under way: what was sent, where its answer is shown, when it is given up

broker.elements.url.value = QUERY.get("broker") ?? "ws://127.0.0.1:9001";
broker.addEventListener("submit", (event) => (event.preventDefault(), connect()));
question.addEventListener("submit", (event) => (event.preventDefault(), ask(question.elements.message)));
cancel.addEventListener("click", () => publish(`${PROJECT}/cancel/${session}`, { requestId: asked.request.requestId }));

function connect() {
  if (!("mqtt" in window)) return say("mqtt.js is not here: run npm install in this folder, and load the page again.");
  if (!/^[A-Za-z0-9_.:-]{1,128}$/.test(session)) return say("?session= is not an id: letters, digits and _.:- alone.");
  bus?.end(true);
  let refusal = ""; // stays to be read, though the broker closes the connection after it
  const { url, username, password } = broker.elements;
  bus = mqtt.connect(url.value, {
    clientId,
    username: username.value || undefined,
    password: password.value || undefined,
    keepalive: 30,
    reconnectPeriod: 1000 + Math.random() * 2000, // not every page at once when the broker comes back
  });
  bus.on("message", (_topic, payload) => received(parsed(payload)));
  bus.on("error", (error) => (refusal = `The broker refuses: ${error.message}. `));
  bus.on("close", () => say(`${refusal}No connection; trying again.`));
  bus.on("connect", async () => {
    refusal = "";
    await bus.subscribeAsync(replies, { qos: 1 });
    say("Connected.");
    send.disabled = asked !== null;
    // What the worker knows already it does not run again: it answers, or is at it.
    if (asked) publish(requests, asked.request);
  });
}

function ask(input) {
  if (asked) return;
  const request = { message: input.value, requestId: randomId(), clientId, stream: true, deadlineMs: GIVE_UP_MS };
  line("question", input.value);
  asked = { request, answer: line("answer", ""), run: 0, attempt: 0, giveUp: Date.now() + GIVE_UP_MS };
  asked.timer = setTimeout(() => end("Nobody has answered."), GIVE_UP_MS);
  input.value = "";
  send.disabled = true;
  cancel.disabled = false;
  say("Sent.");
  publish(requests, request);
}

function received(reply) {
  if (!asked || reply?.requestId !== asked.request.requestId) return;
  const { answer } = asked;
  const { run = 0 } = reply;
  if (run < asked.run) return; // another worker has begun it anew since
  if (run > asked.run) {
    Object.assign(asked, { run, begun: false });
    answer.textContent = "";
  }
  switch (reply.type) {
    case "accepted": {
      // Where workers share requests it may come after the first words.
      if (reply.worker && asked.begun) return;
      answer.textContent = ""; // it begins, or begins anew
      const eta = reply.etaMs === null ? "" : `, about ${Math.ceil(reply.etaMs / 1000)} s`;
      say(`Waiting: ${reply.queuePosition} before this one${eta}.`);
      break;
    }
    case "delta":
      asked.begun = true;
      answer.append(reply.text); // a string is appended as text
      say("Answering.");
      break;
    case "done":
      answer.textContent = reply.text; // the whole of it, whatever was lost on the way
      end(reply.finishReason === "length" ? "The answer was cut: it was too long." : "Done.");
      break;
    case "error":
      refused(reply);
  }
}

function refused({ code, message, retryable, retryAfterMs }) {
  const wait = (retryAfterMs ?? 500 * 2 ** Math.min(asked.attempt++, 5)) + Math.random() * 250;
  if (!retryable || Date.now() + wait >= asked.giveUp) return end(message);
  say(`${message} Trying again in ${Math.ceil(wait / 1000)} s.`);
  Object.assign(asked, { run: 0, begun: false });
  const { request } = asked;
  setTimeout(() => asked?.request === request && publish(requests, request), wait);
}

function end(words) {
  clearTimeout(asked.timer);
  asked = null;
  send.disabled = !bus.connected;
  cancel.disabled = true;
  say(words);
}

function publish(topic, payload) {
  bus.publish(topic, JSON.stringify(payload), { qos: 1 });
}

function line(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  return talk.appendChild(item);
}

function say(words) {
  state.textContent = words;
}

function parsed(payload) {
  try {
    return JSON.parse(payload.toString());
  } catch {
    return null; // no reply of a worker's
  }
}

function randomId() {
  // `crypto.randomUUID` is there only where the page came over TLS.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
