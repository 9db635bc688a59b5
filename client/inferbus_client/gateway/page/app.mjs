// The page: its two views, its key, its colours.

import { key } from "./api.mjs";
import { Bus } from "./bus.mjs";
import { Chat } from "./chat.mjs";
import { say } from "./dom.mjs";
import { Sessions } from "./sessions.mjs";

const THEMES = ["auto", "light", "dark"];

const by = (id) => document.getElementById(id);

const sessions = new Sessions(keptStore());
const chat = new Chat(sessions, needKey, tell);
const bus = new Bus(needKey, tell);

function keptStore() {
  try {
    return window.localStorage;
  } catch {
    // A browser that is told to keep nothing: the page does without.
    return { length: 0, key: () => null, getItem: () => null, removeItem: () => {}, setItem: () => { throw new Error("full"); } };
  }
}

/** Said by a screen reader, after what it says now. */
function tell(words) {
  say(by("told"), words);
}

function needKey(why = "This gateway asks for a key.") {
  say(by("key-why"), key.get() ? "The gateway does not know this key." : why);
  if (!by("key-dialog").open) by("key-dialog").showModal();
}

by("give-key").addEventListener("click", () => {
  say(by("key-why"), "A gateway that asks for keys wants one with each request.");
  by("key-dialog").showModal();
});
by("key-cancel").addEventListener("click", () => by("key-dialog").close());
by("key-form").addEventListener("submit", () => {
  key.set(by("key").value.trim());
  by("key").value = "";
  show();
});

function theme() {
  const chosen = THEMES.includes(sessions.settings.theme) ? sessions.settings.theme : "auto";
  document.documentElement.dataset.theme = chosen;
  say(by("theme"), `Theme: ${chosen}`);
  return chosen;
}

by("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  sessions.settings = { ...sessions.settings, theme: next };
  theme();
});

/** Nobody is asked for figures while nobody looks at them. */
function show() {
  const isBus = location.hash === "#bus";
  by("bus-view").hidden = !isBus;
  by("chat-view").hidden = isBus;
  for (const [id, isHere] of [["to-chat", !isBus], ["to-bus", isBus]]) {
    if (isHere) by(id).setAttribute("aria-current", "page");
    else by(id).removeAttribute("aria-current");
  }
  document.title = isBus ? "Bus – Inferbus" : "Inferbus";
  if (isBus && document.visibilityState === "visible") bus.start();
  else bus.stop();
  if (!isBus) chat.refresh();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view it is
  by("main").focus();
});
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", show);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !by("key-dialog").open && chat.stop()) by("message").focus();
});

theme();
show();
chat.focus();
