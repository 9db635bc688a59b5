// The chat: conversations that this browser keeps, with any model that the bus has.

import { Refusal } from "./api.mjs";
import { make, say, some } from "./dom.mjs";
import { AnswerView, questionOf } from "./messages.mjs";
import { Pictures } from "./pictures.mjs";
import { Settings } from "./settings.mjs";
import { exchange } from "./talk.mjs";

const TITLE = 48;
const TOLD = 600;
const SURE_MS = 3000;

const by = (id) => document.getElementById(id);

export class Chat {
  #sessions;
  #session;
  #needKey;
  #tell;
  #running = null; // what stops the answer that grows, and whose it is
  #settings = new Settings(() => this.#keep());
  #pictures = new Pictures((words) => this.#notice(words));

  constructor(sessions, needKey, tell) {
    this.#sessions = sessions;
    this.#needKey = needKey;
    this.#tell = tell;
    by("composer").addEventListener("submit", (event) => (event.preventDefault(), this.#send()));
    by("message").addEventListener("keydown", (event) => {
      // Enter also chooses among the words that an input method offers.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    by("stop").addEventListener("click", () => this.stop());
    by("fresh").addEventListener("click", () => this.#open(sessions.fresh(this.#session.target)));
    by("target").addEventListener("focus", () => this.refresh());
    by("show-sessions").addEventListener("click", () => this.#showSessions(!by("sessions").classList.contains("shown")));
    const known = sessions.all();
    this.#open(known.find((one) => one.id === sessions.settings.open) ?? known[0] ?? sessions.fresh(""));
  }

  /** Stop the answer that grows. Returns whether there was one. */
  stop() {
    if (!this.#running) return false;
    this.#running.abort.abort();
    return true;
  }

  async refresh() {
    try {
      const count = await this.#settings.refresh();
      this.#notice(count ? "" : "No worker that serves a model is there. The list is asked for again when it gets the focus.");
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) return this.#needKey();
      this.#notice(error instanceof Refusal ? error.message : "No connection to the gateway.");
    }
  }

  #open(session) {
    this.stop();
    this.#session = session;
    this.#sessions.settings = { ...this.#sessions.settings, open: session.id };
    this.#settings.show(session);
    const items = session.messages.map((message, at) => {
      if (message.role === "user") return questionOf(message);
      const view = new AnswerView(session.target || "Answer");
      view.feed(message.text);
      view.end(message.note ?? "");
      if (message.failure && at === session.messages.length - 1) view.fail(message.failure, "", 0, () => this.#again());
      return view.element;
    });
    by("messages").replaceChildren(...(items.length ? items : [beginning()]));
    by("messages").scrollTop = by("messages").scrollHeight;
    this.#showSessions(false);
    this.#list();
    this.focus();
  }

  /** Where one writes; not on a phone, where it would open the keyboard, which nobody has asked for. */
  focus() {
    if (matchMedia("(pointer: fine)").matches) by("message").focus();
  }

  #send() {
    const text = by("message").value.trim();
    if (this.#running || (!text && !this.#pictures.count)) return;
    const session = this.#session;
    if (!session.target) return void this.refresh();
    const images = this.#pictures.take();
    const message = images.length ? { role: "user", text, images } : { role: "user", text };
    session.messages.push(message);
    session.title ||= text.replaceAll(/\s+/g, " ").slice(0, TITLE) || "Picture";
    by("message").value = "";
    by("messages").querySelector(".begin")?.remove();
    by("messages").append(questionOf(message));
    this.#answer(session);
  }

  /** The last question once more. */
  #again() {
    const session = this.#session;
    if (this.#running) return;
    if (session.messages.at(-1)?.role === "assistant") {
      session.messages.pop();
      by("messages").lastElementChild.remove();
    }
    by("message").focus();
    this.#answer(session);
  }

  async #answer(session) {
    const abort = new AbortController();
    const mine = { abort };
    this.#running = mine;
    const answer = { role: "assistant", text: "" };
    const view = new AnswerView(session.target, () => this.#follow());
    const started = performance.now();
    this.#busy(true);
    by("messages").append(view.element);
    view.wait("Sent; a worker takes it");
    this.#follow(true);
    session.touched = Date.now();
    this.#keep();
    try {
      const { reason, usage } = await exchange(session, abort.signal, {
        queued: (place) => this.#queued(view, place),
        thought: (piece) => view.think(piece),
        text: (piece) => {
          if (!answer.text) this.#begun(view);
          answer.text += piece;
          view.feed(piece);
        },
      });
      answer.note = noteOf(reason, usage, performance.now() - started);
      view.end(answer.note);
      this.#tell(`Answer: ${answer.text.slice(0, TOLD)}`);
    } catch (error) {
      this.#ended(view, answer, error, abort.signal.aborted);
    }
    session.messages.push(answer);
    session.touched = Date.now();
    if (this.#running === mine) {
      this.#running = null;
      this.#busy(false);
    }
    this.#keep(session);
  }

  #begun(view) {
    by("queue").hidden = true;
    view.wait("Answering");
  }

  #queued(view, { place, etaMs }) {
    const eta = etaMs === null ? "" : `, about ${etaMs < 1000 ? "a second" : some(Math.round(etaMs / 1000), "second")}`;
    const words = `Waiting: ${some(place, "request")} before this one${eta}.`;
    by("queue").hidden = false;
    say(by("queue"), words);
    view.wait("In the queue");
    this.#tell(words);
  }

  #ended(view, answer, error, isStopped) {
    answer.note = isStopped ? "Stopped." : "";
    view.end(answer.note);
    if (isStopped) return this.#tell("Stopped.");
    const isRefusal = error instanceof Refusal;
    if (isRefusal && error.status === 401) this.#needKey();
    answer.failure = isRefusal ? error.message : "No connection to the gateway.";
    view.fail(answer.failure, isRefusal ? error.code : "", isRefusal ? error.retryAfter : 0, () => this.#again());
    this.#tell(answer.failure);
  }

  #busy(isBusy) {
    by("stop").hidden = !isBusy;
    by("send").hidden = isBusy;
    if (!isBusy) by("queue").hidden = true;
  }

  /** Keep the end of the conversation in sight, unless somebody reads further up. */
  #follow(always = false) {
    const list = by("messages");
    if (always || list.scrollHeight - list.scrollTop - list.clientHeight < 160) list.scrollTop = list.scrollHeight;
  }

  #keep(session = this.#session) {
    if (session.messages.length && !this.#sessions.keep(session)) {
      this.#notice("This browser keeps no more: the conversation is there until the page is closed.");
    }
    this.#list();
  }

  #notice(words) {
    say(by("notice"), words);
    by("notice").hidden = !words;
  }

  #showSessions(isShown) {
    by("sessions").classList.toggle("shown", isShown);
    by("show-sessions").setAttribute("aria-expanded", String(isShown));
  }

  #list() {
    const known = this.#sessions.all();
    if (!known.some((one) => one.id === this.#session.id)) known.unshift(this.#session);
    by("sessions").replaceChildren(...known.map((session) => this.#entry(session)));
  }

  #entry(session) {
    const title = session.title || "New conversation";
    const open = make("button", { type: "button", className: "open" }, title);
    if (session.id === this.#session.id) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => this.#open(session.id === this.#session.id ? this.#session : (this.#sessions.get(session.id) ?? session)));
    const drop = make("button", { type: "button", className: "drop", "aria-label": `Delete ${title}` }, "Delete");
    drop.addEventListener("click", () => {
      if (drop.textContent === "Delete") {
        say(drop, "Sure?");
        setTimeout(() => say(drop, "Delete"), SURE_MS);
        return;
      }
      this.#sessions.remove(session.id);
      if (session.id === this.#session.id) this.#open(this.#sessions.all()[0] ?? this.#sessions.fresh(session.target));
      else this.#list();
      by("fresh").focus();
    });
    return make("li", {}, open, drop);
  }
}

function beginning() {
  return make("li", { className: "begin" }, make("strong", {}, "Ask the bus."), "Your message goes over MQTT to a worker that serves the model above; its answer comes back word by word.");
}

function noteOf(reason, usage, milliseconds) {
  const parts = [];
  if (Number.isFinite(usage?.completion_tokens)) parts.push(some(usage.completion_tokens, "token"));
  parts.push(`${(milliseconds / 1000).toFixed(1)} s`);
  if (reason === "length") parts.push("cut: it reached its longest");
  return parts.join(" · ");
}
