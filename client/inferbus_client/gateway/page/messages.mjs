// How a conversation looks: what was asked, as text; what was answered, as Markdown that grows.

import { make, say, some } from "./dom.mjs";
import { Markdown } from "./markdown.mjs";

/** Addresses that a picture of ours has. */
const PICTURE = /^data:image\/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+$/;

/** What somebody has asked. */
export function questionOf({ text, images = [], lost = 0 }) {
  const pictures = images.filter((url) => typeof url === "string" && PICTURE.test(url));
  return make(
    "li",
    {},
    make("div", { className: "asked" }, make("span", { className: "who" }, "You"), text,
      pictures.length ? make("div", { className: "pictures" }, ...pictures.map((src) => make("img", { src, alt: "Picture that was sent" }))) : null,
      lost ? make("p", { className: "meta" }, `${some(lost, "picture")} no longer kept`) : null),
  );
}

/** An answer that grows. Pieces are shown once a frame, however many come. */
export class AnswerView {
  element;
  #body = make("div", { className: "answer" });
  #markdown = new Markdown(this.#body, withCopy);
  #meta = make("p", { className: "meta" });
  #thoughts = null;
  #pending = "";
  #frame = null;
  #shown;

  /** `shown` is called after each time that more was shown. */
  constructor(name, shown = () => {}) {
    this.#shown = shown;
    this.element = make("li", {}, make("span", { className: "who" }, name), this.#body, this.#meta);
  }

  wait(words) {
    this.#meta.className = "meta waiting";
    say(this.#meta, words);
  }

  feed(piece) {
    this.#pending += piece;
    this.#frame ??= requestAnimationFrame(() => this.#show());
  }

  think(piece) {
    if (!this.#thoughts) {
      this.#thoughts = make("div", { className: "thoughts" });
      this.#body.before(make("details", {}, make("summary", {}, "Thoughts"), this.#thoughts));
    }
    this.#thoughts.append(piece);
  }

  end(words) {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
    this.#show();
    this.#markdown.end();
    this.#meta.className = "meta";
    say(this.#meta, words);
    this.#shown();
  }

  /** Why there is no answer, and a button for another try, which may have to wait. */
  fail(words, code, seconds, again) {
    const button = make("button", { type: "button" }, "Try again");
    this.element.append(make("div", { className: "failure" }, make("p", {}, words), code ? make("p", { className: "faint" }, code) : null, button));
    button.addEventListener("click", again);
    if (seconds) countDown(button, seconds);
    this.#shown();
  }

  #show() {
    this.#frame = null;
    if (!this.#pending) return;
    this.#markdown.feed(this.#pending);
    this.#pending = "";
    this.#shown();
  }
}

function countDown(button, seconds) {
  const until = Date.now() + seconds * 1000;
  button.disabled = true;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.disabled = left > 0;
    say(button, left > 0 ? `Try again in ${left} s` : "Try again");
    if (left > 0 && button.isConnected) setTimeout(tick, 250);
  };
  // It is put into the page after this.
  queueMicrotask(tick);
}

/** A button that copies a block of code. */
function withCopy(figure, text) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    say(button, (await copied(text(), figure)) ? "Copied" : "Press Ctrl+C");
    setTimeout(() => say(button, "Copy"), 2000);
  });
  figure.querySelector("figcaption").append(button);
}

async function copied(text, figure) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, or without leave, there is no clipboard: what is marked can be copied.
    getSelection().selectAllChildren(figure.querySelector("code"));
    return false;
  }
}
