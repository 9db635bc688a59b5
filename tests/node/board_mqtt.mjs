// The thread of board.mjs that speaks MQTT 3.1.1.
import { workerData } from "node:worker_threads";
import mqtt from "mqtt";

const { port, answered } = workerData;
let client = null;

const verbs = {
  async connect(url, settings) {
    client?.end(true);
    client = await mqtt.connectAsync(url, { ...JSON.parse(settings), protocolVersion: 4, reconnectPeriod: 0 }, false);
    client.on("message", (topic, payload) => port.postMessage({ kind: "message", topic, payload: payload.toString() }));
  },
  subscribe: (topic, qos) => client.subscribeAsync(topic, { qos }),
  publish: (topic, payload, options) => client.publishAsync(topic, payload, JSON.parse(options)),
  ping: async () => client.sendPing(),
};

port.on("message", async ({ verb, parts }) => {
  let problem = "";
  try {
    if (verb !== "connect" && !client?.connected) throw new Error("no connection");
    await verbs[verb](...parts);
  } catch (error) {
    problem = String(error.message);
  }
  port.postMessage({ kind: "answer", problem });
  Atomics.store(answered, 0, 1);
  Atomics.notify(answered, 0);
});
