// A small client of Inferbus over MQTT 5: requests and replies belong together by Correlation Data.
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import mqtt from "mqtt";

/** What the worker refused or could not answer; `code` and `retryable` are those of docs/contract.md. */
export class RequestFailed extends Error {
  constructor({ code, message, retryable, retryAfterMs }) {
    super(message);
    Object.assign(this, { code, retryable, retryAfterMs });
  }
}

/** Nobody has answered in time. */
export class TimedOut extends Error {}

export class Inferbus {
  #mqtt;
  #project;
  #clientId;
  #underWay = new Map(); // by Correlation Data, which is the request's id

  /** Rejects where the broker is not there or refuses; later it is found again by itself. */
  static async connect(url, { project = "general", ...options } = {}) {
    const clientId = `node-${randomUUID()}`;
    // Not all at the same moment when the broker comes back.
    const reconnectPeriod = 1000 + Math.random() * 2000;
    const settings = { protocolVersion: 5, clientId, clean: true, keepalive: 30, reconnectPeriod, ...options };
    return new Inferbus(await mqtt.connectAsync(url, settings, false), project, clientId);
  }

  constructor(client, project, clientId) {
    this.#mqtt = client;
    this.#project = project;
    this.#clientId = clientId;
    client.on("message", (_topic, payload, packet) => this.#received(payload, packet.properties ?? {}));
    client.on("error", (error) => console.error(`mqtt: ${error.message}`));
    // Replies went nowhere while there was no connection. A request that is known is not run again, only answered.
    client.on("connect", () => this.#underWay.forEach((request) => request.send()));
  }

  /**
   * The reply of type `done`. `onDelta` hears what is new in it, or `null` where it begins anew.
   * Rejects with `RequestFailed` or `TimedOut`; an aborted `signal` cancels the request at the worker.
   */
  async ask(message, { session = "node", timeoutMs = 60_000, onDelta = () => {}, signal } = {}) {
    const requestId = randomUUID();
    const deadline = Date.now() + timeoutMs;
    const replies = `${this.#project}/assistant_response/${session}/${this.#clientId}`;
    await this.#mqtt.subscribeAsync(replies, { qos: 1 });
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#once({ message, requestId, session, replies, deadline, onDelta, signal });
      } catch (failure) {
        const wait = (failure.retryAfterMs ?? 500 * 2 ** Math.min(attempt, 5)) + Math.random() * 250;
        if (!failure.retryable || signal?.aborted || Date.now() + wait >= deadline) throw failure;
        await pause(wait, undefined, { signal });
      }
    }
  }

  close() {
    return this.#mqtt.endAsync();
  }

  #once({ message, requestId, session, replies, deadline, onDelta, signal }) {
    const cancel = () =>
      this.#mqtt.publish(`${this.#project}/cancel/${session}`, JSON.stringify({ requestId }), { qos: 1 });
    const send = () => {
      const deadlineMs = Math.max(1, deadline - Date.now());
      const request = { message, requestId, clientId: this.#clientId, sessionId: session, stream: true, deadlineMs };
      const properties = { responseTopic: replies, correlationData: Buffer.from(requestId) };
      this.#mqtt.publish(`${this.#project}/user_input`, JSON.stringify(request), { qos: 1, properties });
    };
    let timer;
    const answer = new Promise((resolve, reject) => {
      this.#underWay.set(requestId, { send, onDelta, resolve, reject, run: 0 });
      const giveUp = () => (cancel(), reject(new TimedOut("nobody has answered in time")));
      timer = setTimeout(giveUp, Math.max(0, deadline - Date.now()));
      signal?.addEventListener("abort", cancel); // the answer is then a failure, `cancelled`
      send();
    });
    return answer.finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
      this.#underWay.delete(requestId);
    });
  }

  #received(payload, { correlationData }) {
    const request = this.#underWay.get(String(correlationData));
    const reply = parsed(payload);
    if (!request || !reply) return;
    const { run = 0 } = reply;
    if (run < request.run) return; // another worker has begun it anew since
    if (run > request.run) Object.assign(request, { run, begun: false }).onDelta(null);
    switch (reply.type) {
      case "accepted": // where workers share requests it may come after the first words, and nothing begins anew
        return (reply.worker && request.begun) || request.onDelta(null);
      case "delta":
        request.begun = true;
        return request.onDelta(reply.text);
      case "done":
        return request.resolve(reply);
      case "error":
        return request.reject(new RequestFailed(reply));
    }
  }
}

function parsed(payload) {
  try {
    return JSON.parse(payload);
  } catch {
    return null; // whoever may publish there may write what he likes
  }
}
