// Runs the program of a board in MicroPython. node board.mjs CONFIG FILE...: CONFIG is config.py, as text; `main.py` is run.
// This build of MicroPython has no sockets: mqtt.js speaks MQTT, in a thread of its own, for a program that waits.
import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { MessageChannel, Worker, receiveMessageOnPort } from "node:worker_threads";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript/micropython.mjs";

const [config, ...files] = process.argv.slice(2);
const { port1: port, port2 } = new MessageChannel();
const answered = new Int32Array(new SharedArrayBuffer(4));
const thread = new Worker(new URL("./board_mqtt.mjs", import.meta.url), {
  workerData: { port: port2, answered },
  transferList: [port2],
});
const arrived = [];

/** Wait until the other thread has done it; what it says is empty, or what went wrong. */
function call(verb, ...parts) {
  Atomics.store(answered, 0, 0);
  port.postMessage({ verb, parts });
  if (Atomics.wait(answered, 0, 0, 15_000) === "timed-out") return "timed out";
  for (;;) {
    const { message } = receiveMessageOnPort(port);
    if (message.kind === "answer") return message.problem;
    arrived.push(message);
  }
}

/** The next message that has arrived: topic and payload; null: there is none. */
function poll() {
  for (let next; (next = receiveMessageOnPort(port)); ) arrived.push(next.message);
  const first = arrived.shift();
  return first ? [first.topic, first.payload] : null;
}

const python = await loadMicroPython({ linebuffer: true, stdout: (line) => console.log(line) });
python.registerJsModule("bridge", { call, poll });
python.FS.mkdir("/lib/");
python.FS.mkdir("/lib/umqtt");
python.FS.writeFile("/lib/umqtt/simple.py", readFileSync(new URL("./umqtt_simple.py", import.meta.url)));
python.FS.writeFile("/lib/network.py", "STA_IF = 0\nclass WLAN:\n    def __init__(self, mode): pass\n" +
  "    def active(self, on): pass\n    def connect(self, name, password): pass\n    def isconnected(self): return True\n");
python.FS.writeFile("/lib/machine.py", "def unique_id(): return b'\\x01\\x02'\n");
python.FS.writeFile("/lib/config.py", config);
for (const file of files) python.FS.writeFile(`/lib/${basename(file)}`, readFileSync(file));
try {
  // A board's chip seeds what it draws.
  python.runPython(`import random\nrandom.seed(${randomInt(2 ** 30)})`);
  python.runPython("import sys\nsys.path.append('/lib')\nimport main");
} finally {
  await thread.terminate();
}
