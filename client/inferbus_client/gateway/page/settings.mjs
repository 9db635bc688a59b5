// What a conversation is asked with: the model, the system prompt, the sampling.

import { ask } from "./api.mjs";
import { make } from "./dom.mjs";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const LONGEST_NAME = 300;

const by = (id) => document.getElementById(id);

export class Settings {
  #changed;
  #session = null;
  #models = [];

  /** `changed` is called when the user has changed something of the session. */
  constructor(changed) {
    this.#changed = changed;
    by("target").addEventListener("change", () => this.#take());
    by("settings").addEventListener("change", () => this.#take());
    by("settings").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      by("settings").open = false;
      by("settings").firstElementChild.focus();
      event.stopPropagation();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!by("settings").contains(event.target)) by("settings").open = false;
    });
  }

  show(session) {
    this.#session = session;
    by("system").value = session.system;
    for (const name of NUMBERS) by(name).value = session.sampling[name] ?? "";
    this.#targets();
  }

  /** Ask who is there. Throws what `ask` throws. */
  async refresh() {
    const { data } = await (await ask("/v1/models")).json();
    const names = (Array.isArray(data) ? data : []).map((one) => String(one?.id ?? "").slice(0, LONGEST_NAME));
    this.#models = [...new Set(names)].filter(Boolean).slice(0, 500);
    this.#targets();
    return this.#models.length;
  }

  #targets() {
    const session = this.#session;
    if (!session) return;
    if (!session.target && this.#models.length) session.target = this.#models[0];
    const isThere = this.#models.includes(session.target);
    const options = this.#models.map((name) => make("option", { value: name }, name));
    if (session.target && !isThere) options.unshift(make("option", { value: session.target }, `${session.target} (not there now)`));
    if (!options.length) options.push(make("option", { value: "" }, "no model is there"));
    const select = by("target");
    const shown = [...select.options].map((one) => one.textContent).join("\n");
    if (shown !== options.map((one) => one.textContent).join("\n")) select.replaceChildren(...options);
    select.value = session.target;
  }

  #take() {
    const session = this.#session;
    session.target = by("target").value;
    session.system = by("system").value;
    for (const name of NUMBERS) {
      const input = by(name);
      if (input.value !== "" && input.validity.valid) session.sampling[name] = input.valueAsNumber;
      else delete session.sampling[name];
    }
    this.#changed();
  }
}
