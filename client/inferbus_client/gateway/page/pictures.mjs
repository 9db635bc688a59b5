// Pictures to send: dropped, pasted or chosen; made small, and drawn anew, so that nothing else of the file travels.

import { make } from "./dom.mjs";

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const MOST = 4;
const EDGE = 1024;
const LARGEST_FILE = 30_000_000;

const by = (id) => document.getElementById(id);

export class Pictures {
  #urls = [];
  #say;

  /** `say` shows why a file is not taken. */
  constructor(say) {
    this.#say = say;
    const composer = by("composer");
    const view = by("chat-view");
    view.addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      composer.classList.add("over");
    });
    view.addEventListener("dragleave", () => composer.classList.remove("over"));
    view.addEventListener("drop", (event) => {
      composer.classList.remove("over");
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.#add(event.dataTransfer.files);
    });
    by("message").addEventListener("paste", (event) => {
      if (event.clipboardData.files.length) this.#add(event.clipboardData.files);
    });
    by("attach").addEventListener("click", () => by("files").click());
    by("files").addEventListener("change", () => {
      this.#add(by("files").files);
      by("files").value = "";
    });
  }

  /** Those that are there, which are then no more. */
  take() {
    const taken = this.#urls;
    this.#urls = [];
    this.#show();
    return taken;
  }

  get count() {
    return this.#urls.length;
  }

  async #add(files) {
    for (const file of [...files]) {
      if (this.#urls.length >= MOST) return this.#say(`At most ${MOST} pictures go with a message.`);
      try {
        if (!KINDS.includes(file.type) || file.size > LARGEST_FILE) throw new TypeError("no picture");
        this.#urls.push(await small(file));
      } catch {
        this.#say("Only pictures can be sent: PNG, JPEG, WebP or GIF.");
      }
    }
    this.#show();
  }

  #show() {
    const items = this.#urls.map((url, at) => {
      const remove = make("button", { type: "button", "aria-label": `Remove picture ${at + 1}` }, "Remove");
      remove.addEventListener("click", () => {
        this.#urls.splice(at, 1);
        this.#show();
        by("message").focus();
      });
      return make("li", {}, make("img", { src: url, alt: `Picture ${at + 1}` }), remove);
    });
    by("pictures").replaceChildren(...items);
    by("pictures").hidden = items.length === 0;
  }
}

async function small(file) {
  const picture = await createImageBitmap(file);
  const scale = Math.min(1, EDGE / Math.max(picture.width, picture.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(picture.width * scale)), height: Math.max(1, Math.round(picture.height * scale)) });
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  return canvas.toDataURL("image/jpeg", 0.85);
}
