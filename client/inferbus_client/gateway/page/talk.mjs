// One exchange with a model: the request, and what comes of it as it comes.

import { ask, events, Refusal } from "./api.mjs";

/** Letters of an answer after which it is stopped: no page shows more. */
const LONGEST = 2_000_000;
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

/**
 * Ask, and hand on what comes: `on.queued({place, etaMs})`, `on.text(piece)`, `on.thought(piece)`.
 * Returns `{reason, usage}`; throws a `Refusal`, an AbortError once `signal` says so, or a TypeError without a connection.
 */
export async function exchange(session, signal, on) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(bodyOf(session)),
    signal,
  });
  const place = Number.parseInt(response.headers.get("x-inferbus-queue-position") ?? "", 10);
  if (place > 0) on.queued({ place, etaMs: null });
  let reason = null;
  let usage = null;
  let letters = 0;
  for await (const { comment, data } of events(response)) {
    const waits = comment && /^queued place=(\d{1,9})(?: eta_ms=(\d{1,12}))?$/.exec(comment);
    if (waits) on.queued({ place: Number(waits[1]), etaMs: waits[2] ? Number(waits[2]) : null });
    if (!data) continue;
    if (data === "[DONE]") return { reason, usage };
    const { error, choices, usage: counted } = parsed(data);
    if (error) throw new Refusal(0, String(error.message ?? "The answer broke off."), String(error.code ?? ""), null);
    usage = counted ?? usage;
    const [{ delta = {}, finish_reason: finished = null } = {}] = choices ?? [];
    const thought = delta.reasoning_content ?? delta.reasoning;
    if (typeof thought === "string" && thought) on.thought(thought);
    if (typeof delta.content === "string" && delta.content) on.text(delta.content);
    letters += (delta.content?.length ?? 0) + (thought?.length ?? 0);
    if (letters > LONGEST) return { reason: "length", usage };
    reason = finished ?? reason;
  }
  throw new Refusal(0, "The connection ended in the middle of the answer.", "", null);
}

function parsed(data) {
  try {
    return JSON.parse(data) ?? {};
  } catch {
    return {};
  }
}

function bodyOf({ target, system, sampling, messages }) {
  const said = messages.flatMap(({ role, text, images }, at) => {
    // A question without an answer is told only where it is the one that is asked now.
    const answer = messages[at + 1];
    if (role === "user" && answer && !(answer.role === "assistant" && answer.text) && at < messages.length - 1) return [];
    if (role === "assistant" && !text) return [];
    return [{ role, content: images?.length ? parts(text, images) : text }];
  });
  const body = { model: target, messages: system.trim() ? [{ role: "system", content: system }, ...said] : said };
  for (const name of NUMBERS) if (Number.isFinite(sampling[name])) body[name] = sampling[name];
  return { ...body, stream: true, stream_options: { include_usage: true } };
}

function parts(text, images) {
  const pictures = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return text ? [{ type: "text", text }, ...pictures] : pictures;
}
