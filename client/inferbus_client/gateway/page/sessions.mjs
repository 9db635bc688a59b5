// The conversations that this browser keeps: each under a key of its own, so that two tabs do not write over each other's.

const PREFIX = "inferbus.session.";
const SETTINGS = "inferbus.settings";
/** Letters of all of them; browsers keep five million or more. The oldest go first. */
const MOST_LETTERS = 2_500_000;
/** Pictures of older messages are dropped before a conversation is. */
const MOST_OF_ONE = 1_200_000;
const MOST_SESSIONS = 200;

export class Sessions {
  #store;
  #unkept = new Map(); // what the browser would not keep lives as long as the page

  constructor(store) {
    this.#store = store;
  }

  /** All of them, those last touched first. What is there and no conversation of ours is left alone. */
  all() {
    const found = new Map();
    for (const name of this.#names()) {
      const session = this.#read(name);
      if (session) found.set(session.id, session);
    }
    for (const session of this.#unkept.values()) found.set(session.id, session);
    return [...found.values()].sort((one, other) => other.touched - one.touched);
  }

  get(id) {
    return this.#unkept.get(id) ?? this.#read(PREFIX + id);
  }

  fresh(target) {
    return { id: randomId(), title: "", target, system: "", sampling: {}, messages: [], touched: Date.now() };
  }

  /** Keep it. Returns whether the browser does: where it does not, it is there until the page is closed. */
  keep(session) {
    const text = fitting(session);
    for (const old of this.#superfluous(session.id, text.length)) this.remove(old);
    for (;;) {
      try {
        this.#store.setItem(PREFIX + session.id, text);
        this.#unkept.delete(session.id);
        return true;
      } catch {
        const oldest = this.all().filter((one) => one.id !== session.id && !this.#unkept.has(one.id)).pop();
        if (!oldest) break;
        this.remove(oldest.id);
      }
    }
    this.#unkept.set(session.id, session);
    return false;
  }

  remove(id) {
    this.#unkept.delete(id);
    this.#quietly((store) => store.removeItem(PREFIX + id));
  }

  /** What the page itself remembers: which conversation is open, light or dark. */
  get settings() {
    const known = this.#parsed(SETTINGS);
    return known && typeof known === "object" && !Array.isArray(known) ? known : {};
  }

  set settings(value) {
    this.#quietly((store) => store.setItem(SETTINGS, JSON.stringify(value)));
  }

  #superfluous(but, room) {
    const others = this.all().filter((one) => one.id !== but);
    let letters = room;
    return others
      .filter((one, place) => {
        letters += JSON.stringify(one).length;
        return letters > MOST_LETTERS || place >= MOST_SESSIONS - 1;
      })
      .map((one) => one.id);
  }

  #names() {
    const store = this.#store;
    return this.#quietly(() => Array.from({ length: store.length }, (_, at) => store.key(at))) ?? [];
  }

  #read(name) {
    if (!name?.startsWith(PREFIX)) return null;
    const found = this.#parsed(name);
    const isOurs =
      found && PREFIX + found.id === name && Array.isArray(found.messages) && Number.isFinite(found.touched) &&
      [found.title, found.system, found.target].every((text) => typeof text === "string");
    if (!isOurs) return null;
    const messages = found.messages.filter((one) => one && typeof one.text === "string" && typeof one.role === "string");
    return { ...found, messages, sampling: found.sampling && typeof found.sampling === "object" ? found.sampling : {} };
  }

  #parsed(name) {
    try {
      return JSON.parse(this.#store.getItem(name));
    } catch {
      return null;
    }
  }

  #quietly(act) {
    try {
      return act(this.#store);
    } catch {
      return null;
    }
  }
}

/** As text, with the pictures of old messages left out until it is no longer than one may be. */
function fitting(session) {
  let text = JSON.stringify(session);
  const messages = session.messages.map((one) => ({ ...one }));
  for (const message of messages) {
    if (text.length <= MOST_OF_ONE) break;
    if (!message.images?.length) continue;
    message.lost = message.images.length;
    delete message.images;
    text = JSON.stringify({ ...session, messages });
  }
  return text;
}

function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");
}
