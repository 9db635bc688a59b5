// What the page asks of its server: always by `fetch`, with the key where there is one, and read as it comes.

const KEY = "inferbus.key";
/** Letters of one line of a stream; a longer one is no line of ours. */
const LONGEST_LINE = 8_000_000;

/** An answer other than the one that was asked for. `retryAfter` are seconds, or null. */
export class Refusal extends Error {
  constructor(status, message, code, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The key of this tab; it is forgotten with it. */
export const key = {
  get: () => stored((store) => store.getItem(KEY)) ?? "",
  set: (value) => stored((store) => (value ? store.setItem(KEY, value) : store.removeItem(KEY))),
};

function stored(act) {
  try {
    return act(sessionStorage);
  } catch {
    return null; // a browser that keeps nothing asks again
  }
}

/** A response that is well. Throws a `Refusal`, or a TypeError where nobody answers. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  const response = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error", cache: "no-store" });
  if (!response.ok) throw await refusalOf(response);
  return response;
}

async function refusalOf(response) {
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // not JSON: somebody between us and the gateway
  }
  const message = typeof said.message === "string" ? said.message : `HTTP ${response.status}`;
  const code = typeof said.code === "string" ? said.code : (response.headers.get("x-inferbus-reason") ?? "");
  return new Refusal(response.status, message, code, retryAfter(response.headers));
}

function retryAfter(headers) {
  const exact = Number.parseFloat(headers.get("retry-after-ms") ?? "");
  const seconds = Number.isFinite(exact) ? exact / 1000 : Number.parseFloat(headers.get("retry-after") ?? "");
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds, 3600) : null;
}

/** The server-sent events of a response: `{event, data}`, and `{comment}` for what stands between them. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pieces = []; // of a line that has not ended
  let size = 0;
  let event = "message";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = value.split("\n");
      for (let at = 0; at < lines.length; at += 1) {
        pieces.push(lines[at]);
        size += lines[at].length;
        if (size > LONGEST_LINE) throw new Refusal(0, "The server sent a line without an end.", "", null);
        if (at === lines.length - 1) break;
        const line = pieces.join("").replace(/\r$/, "");
        pieces = [];
        size = 0;
        if (line === "") {
          if (data.length) yield { event, data: data.join("\n") };
          event = "message";
          data = [];
        } else if (line.startsWith(":")) yield { comment: line.slice(1).trim() };
        else if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
