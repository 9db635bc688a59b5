// The live view: what the gateway tells each second, as text beside bars and plots.

import { ask, events, Refusal } from "./api.mjs";
import { draw, make, say } from "./dom.mjs";
import { duration, figure, Plot } from "./plots.mjs";

const KEPT = 300;
const EVENTS = 200;
const SHOWN_CODES = 5;
/** The server speaks each second: after so many milliseconds of silence the connection is given up. */
const SILENCE = 8000;
const KINDS = { ready: "good", loading: "soon", starting: "soon", draining: "soon", stopped: "soon", "half-open": "soon" };

const by = (id) => document.getElementById(id);

export class Bus {
  #needKey;
  #tell;
  #abort = null;
  #moments = [];
  #columns = [];
  #slotColumns = [];
  #meanings = {};
  #told = new Set();
  #plots;

  /** `needKey` asks for a key; `tell` has something said to whoever listens to the page. */
  constructor(needKey, tell) {
    this.#needKey = needKey;
    this.#tell = tell;
    this.#plots = [
      new Plot("Requests", (value) => `${figure(value)}/s`, [["", (one) => one.requestsPerS]]),
      new Plot("Tokens", (value) => `${figure(value)}/s`, [["", (one) => one.tokensPerS]]),
      new Plot("Time to the whole answer", duration, ["p50", "p95", "p99"].map((name) => [name, (one) => one[name]])),
      new Plot("Requests now", figure, [["running", (one) => one.active], ["waiting", (one) => one.queued]]),
      new Plot("Refused", (value) => `${figure(value)}/s`, codes),
    ];
    by("plots").replaceChildren(...this.#plots.map((plot) => plot.element));
  }

  /** Look, until `stop`; connects again by itself. */
  async start() {
    if (this.#abort) return;
    const abort = new AbortController();
    this.#abort = abort;
    for (let failures = 0; !abort.signal.aborted; failures += 1) {
      try {
        await this.#follow(abort, () => (failures = 0));
        this.#link("bad", "The gateway closed the connection; trying again.");
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error instanceof Refusal && error.status === 401) {
          this.#link("bad", "This gateway asks for a key.");
          this.stop();
          return this.#needKey();
        }
        const why = error instanceof Refusal ? error.message : "No connection to the gateway";
        this.#link("bad", `${why}; trying again.`);
      }
      // Not every page at once when the gateway comes back.
      await rest(Math.min(500 * 2 ** failures, 8000) * (0.75 + Math.random() / 2), abort.signal);
    }
  }

  stop() {
    this.#abort?.abort();
    this.#abort = null;
  }

  async #follow(abort, onWell) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE);
    try {
      const response = await ask("/api/live", { signal: AbortSignal.any([abort.signal, silence.signal]) });
      for await (const { event, data } of events(response)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE);
        if (!data) continue;
        onWell();
        this.#take(event, JSON.parse(data));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take(event, seen) {
    if (event === "all") {
      this.#moments = seen.history;
      this.#columns = seen.columns;
      this.#slotColumns = seen.slotColumns;
      this.#meanings = seen.meanings;
      by("events").replaceChildren();
    } else this.#moments.push(seen.moment);
    this.#moments = this.#moments.slice(-KEPT);
    this.#happened(seen.events);
    this.#troubles(seen);
    for (const plot of this.#plots) plot.show(this.#moments);
    this.#workers(seen);
    this.#groups(seen.groups);
    this.#slots(seen.workers);
    this.#queues(seen.queues);
  }

  #link(state, words) {
    by("link").dataset.state = state;
    say(by("link"), words);
  }

  #troubles({ isUp, workers, more, troubles }) {
    const there = workers.filter((worker) => worker.state !== "offline").length + more;
    const faults = troubles.filter((trouble) => trouble.level === "fault").length;
    const count = there === 1 ? "One worker" : `${there || "No"} workers`;
    if (!isUp) this.#link("bad", "The gateway has no connection to the broker.");
    else if (faults) this.#link("bad", `${count}; ${faults === 1 ? "one thing is" : `${faults} things are`} wrong.`);
    else this.#link("well", there ? `${count}; all is well.` : `${count}.`);
    show(by("troubles"), troubles, (trouble) => make("li"), (item, { level, words }) => {
      item.dataset.level = level;
      if (item.childElementCount === 0) item.append(make("b"), make("span"));
      say(item.firstChild, level === "fault" ? "Fault" : "Note");
      say(item.lastChild, words);
    });
    // Said once, though its figures change each second.
    const faultsNow = troubles.filter((one) => one.level === "fault").map((one) => [one.words.replaceAll(/\d[\d.,]*/g, "0"), one.words]);
    for (const [kind, words] of faultsNow) if (!this.#told.has(kind)) this.#tell(words);
    this.#told = new Set(faultsNow.map(([kind]) => kind));
  }

  #workers({ workers, total, more }) {
    const names = ["worker", "state", "model", ...this.#columns.map((column) => column.name)];
    head(by("workers"), names, 3, ["", "", "", ...this.#columns.map((column) => column.meaning)]);
    const rows = workers.map((worker) => ({
      words: [worker.name, stateOf(worker), worker.model],
      kind: worker.isOld ? "old" : "",
      cells: worker.cells ?? this.#columns.map(() => "-"),
      meaning: worker.isOld ? "these figures are old" : worker.group ? `of group ${worker.group}` : "",
    }));
    if (total && workers.length > 1) rows.push({ words: ["All", "", ""], kind: "total", cells: total, meaning: "" });
    table(by("workers"), rows, names, ["active", "queue"]);
    caption(by("workers"), more > 0 ? `and ${more} more` : workers.length ? "" : "No worker has said anything.");
  }

  #slots(workers) {
    const names = ["model", "slot", "state", "waiting", ...this.#slotColumns.map((column) => column.name)];
    head(by("slots"), names, 3, ["", "", "", "requests that wait for the model", ...this.#slotColumns.map((one) => one.meaning)]);
    const none = this.#slotColumns.map(() => "-");
    const rows = workers.flatMap((worker) =>
      worker.models.flatMap((model) => {
        const bare = { name: "-", state: model.state, breaker: "closed", backend: "", cells: none };
        return (model.slots.length ? model.slots : [bare]).map((slot, at) => {
          const word = ["", "closed"].includes(slot.breaker) || slot.state === slot.breaker ? slot.state : slot.breaker;
          const place = slot.name === "-" ? "-" : `${slot.name} on ${worker.name}`;
          return {
            words: [model.name, place, { word: word || "-", kind: KINDS[word] ?? "bad" }],
            kind: "",
            cells: [at === 0 ? String(model.queued) : "", ...slot.cells],
            meaning: this.#meanings[word] ?? "",
          };
        });
      }),
    );
    table(by("slots"), rows, names, ["active"]);
    caption(by("slots"), rows.length ? "" : "No model is told of.");
  }

  #groups(groups) {
    by("groups-section").hidden = groups.length === 0;
    show(by("groups"), groups, () => make("li", {}, make("b"), make("span"), make("ul")), (item, { name, summary, lines }) => {
      say(item.children[0], name);
      say(item.children[1], summary);
      show(item.children[2], lines, () => make("li"), say);
    });
  }

  #queues(queues) {
    const most = Math.max(1, ...queues.map((one) => one.queued));
    const rows = queues.length ? queues : [null];
    show(by("queues"), rows, () => make("li"), (item, one) => {
      if (!one) return item.replaceChildren("Nothing waits.");
      if (item.childElementCount !== 3) item.replaceChildren(make("span"), bar(0, 1), make("span"));
      say(item.firstChild, one.project);
      fill(item.children[1], one.queued, most, false);
      say(item.lastChild, one.queued === 1 ? "1 waits" : `${one.queued} wait`);
    });
  }

  #happened(list) {
    const items = list.map(({ at, kind, words }) => {
      const when = new Date(at * 1000);
      const stamp = make("time", { dateTime: when.toISOString() }, when.toLocaleTimeString("en-GB"));
      const item = make("li", {}, stamp, make("span", {}, words));
      item.dataset.kind = kind;
      return item;
    });
    const events = by("events");
    if (items.length) events.querySelector(".none")?.remove();
    events.prepend(...items.reverse());
    while (events.childElementCount > EVENTS) events.lastElementChild.remove();
    if (!events.childElementCount) events.append(make("li", { className: "none" }, "Nothing since somebody looks."));
  }
}

/** The refusal codes of the last minutes, the most frequent first. */
function codes(moments) {
  const sums = new Map();
  for (const { refused } of moments) {
    for (const [code, rate] of Object.entries(refused ?? {})) sums.set(code, (sums.get(code) ?? 0) + rate);
  }
  const names = [...sums].sort((one, other) => other[1] - one[1]).slice(0, SHOWN_CODES).map(([code]) => code);
  if (!names.length) return [["", (moment) => (moment.refused ? 0 : null)]];
  return names.map((code) => [code, (moment) => (moment.refused ? (moment.refused[code] ?? 0) : null)]);
}

function stateOf({ state, since, isOld }) {
  const age = since === null || since < 0 ? "" : ` for ${ageOf(since)}`;
  return { word: `${state}${age}${isOld ? ", silent" : ""}`, kind: isOld ? "bad" : (KINDS[state] ?? "bad") };
}

function ageOf(seconds) {
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
  return `${seconds} s`;
}

/** As many elements as there are things, those that stand kept, so that nobody loses his place in them. */
function show(list, things, fresh, write) {
  while (list.childElementCount > things.length) list.lastElementChild.remove();
  things.forEach((thing, at) => {
    if (!list.children[at]) list.append(fresh(thing));
    write(list.children[at], thing);
  });
}

function head(element, names, words, meanings) {
  if (element.tHead?.dataset.names === names.join()) return;
  const cells = names.map((name, at) => {
    const cell = make("th", { scope: "col", className: at < words ? "word" : "" }, name);
    if (meanings[at]) cell.title = meanings[at];
    return cell;
  });
  const top = make("thead", {}, make("tr", {}, ...cells));
  top.dataset.names = names.join();
  element.replaceChildren(top, make("tbody"));
}

function caption(element, words) {
  if (!words) return void element.caption?.remove();
  say(element.createCaption(), words);
}

function table(element, rows, names, barred) {
  show(element.tBodies[0], rows, () => make("tr"), (line, { words, kind, cells, meaning }) => {
    line.className = kind;
    line.title = meaning;
    const all = [...words, ...cells];
    while (line.childElementCount > all.length) line.lastElementChild.remove();
    all.forEach((cell, at) => write(line, at, cell, names[at], at < words.length, barred.includes(names[at])));
  });
}

function write(line, at, cell, name, isWord, isBarred) {
  if (!line.children[at]) {
    const made = at === 0 ? make("th", { scope: "row", className: "word" }) : make("td", { className: isWord ? "word" : "" });
    if (at > 0) made.setAttribute("data-label", name);
    line.append(made);
  }
  const place = line.children[at];
  if (typeof cell === "object") {
    if (!place.firstElementChild) place.append(make("span", { className: "state" }));
    place.firstElementChild.dataset.kind = cell.kind;
    say(place.firstElementChild, cell.word);
    return;
  }
  const [now, most] = cell.split("/").map(Number);
  if (!isBarred || !Number.isFinite(most)) return void say(place, cell);
  if (place.childElementCount !== 2) place.replaceChildren(make("span"), bar(0, 1));
  say(place.firstElementChild, cell);
  // An engine that is busy is none that is in trouble.
  fill(place.lastElementChild, now, most, name === "queue");
}

function bar() {
  return draw("svg", { class: "bar", "aria-hidden": "true" }, draw("rect", { height: "100%", width: "0%" }));
}

function fill(element, now, most, isQueue) {
  const share = most > 0 ? Math.min(Math.max(now / most, 0), 1) : 0;
  element.firstChild.setAttribute("width", `${(share * 100).toFixed(1)}%`);
  element.setAttribute("class", isQueue && share > 0.5 ? "bar full" : "bar");
}

function rest(milliseconds, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}
