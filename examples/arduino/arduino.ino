// An ESP32 that asks a language model over MQTT: a line from the serial port is the question, the answer goes out there.
// Libraries: PubSubClient 2.8, ArduinoJson 7. Copy secrets.example.h to secrets.h and fill it in.
#include <ArduinoJson.h>
#include <PubSubClient.h>
#include <WiFi.h>
#include <WiFiClientSecure.h>

#include "secrets.h"

#ifndef GIVE_UP_MS
#define GIVE_UP_MS 60000UL
#endif
const unsigned long REPEAT_MS = 20000;  // PubSubClient publishes at QoS 0: a request or its reply may be lost
const unsigned long LONGEST_PAUSE_MS = 30000;
// PubSubClient drops a packet that is larger without a word: some 500 tokens of UTF-8 and what is around them.
const uint16_t BUFFER_BYTES = 4096;
const int MAX_TOKENS = 500;

#ifdef BROKER_CA
WiFiClientSecure network;
#else
WiFiClient network;
#endif
PubSubClient mqtt(network);
String board, requests, replies, presence;
unsigned long connectAt = 0, connectPause = 1000;

struct Question {
  bool underWay = false;
  String id, message;
  unsigned long askedAt, sendAt, pause;
} question;

// What a model writes is a stranger's text: of control characters only the line breaks reach the port.
void show(const char* text) {
  for (; *text; text++) {
    if ((unsigned char)*text >= ' ' || *text == '\n') Serial.write(*text);
  }
  Serial.println();
}

void failed(const char* code, const char* message) {
  question.underWay = false;
  show((String("no answer, ") + code + ": " + message).c_str());
}

// A repeat goes under the same id, and the worker does not run it again, only answers it.
void send(unsigned long left) {
  JsonDocument request;
  request["message"] = question.message;
  request["requestId"] = question.id;
  request["clientId"] = board;
  request["reply"] = "json";
  request["maxTokens"] = MAX_TOKENS;
  request["deadlineMs"] = left;
  String payload;
  serializeJson(request, payload);
  question.sendAt = millis() + REPEAT_MS;
  if (!mqtt.publish(requests.c_str(), payload.c_str()) && mqtt.connected()) {
    failed("message_too_large", "it does not fit the buffer");
  }
}

void received(char* /*topic*/, uint8_t* payload, unsigned int length) {
  JsonDocument reply;
  if (deserializeJson(reply, payload, length)) return;  // no reply of a worker's
  if (!question.underWay || reply["requestId"] != question.id) return;
  if (reply["type"] == "done") {
    question.underWay = false;
    show(reply["text"] | "");
  } else if (reply["type"] == "error") {
    unsigned long pause = reply["retryAfterMs"] | question.pause;
    pause += random(250);  // so that boards which were refused together do not come together again
    unsigned long spent = millis() - question.askedAt;
    if (!(reply["retryable"] | false) || spent + pause >= GIVE_UP_MS) {
      failed(reply["code"] | "", reply["message"] | "");
    } else {
      question.sendAt = millis() + pause;
      question.pause = min(2 * question.pause, LONGEST_PAUSE_MS);
    }
  }
}

void connectToBroker() {
  if ((long)(millis() - connectAt) < 0) return;
  // The last will tells others that this board is gone; a clean session, since what is lost is asked for again.
  if (mqtt.connect(board.c_str(), BROKER_USER, BROKER_PASSWORD, presence.c_str(), 1, true, "offline", true)) {
    mqtt.publish(presence.c_str(), "online", true);
    mqtt.subscribe(replies.c_str(), 1);
    connectPause = 1000;
    question.sendAt = millis();
    return;
  }
  connectAt = millis() + connectPause + random(connectPause);
  connectPause = min(2 * connectPause, LONGEST_PAUSE_MS);
}

void setup() {
  Serial.begin(115200);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  while (WiFi.status() != WL_CONNECTED) delay(200);
  board = "esp32-" + WiFi.macAddress();
  requests = String(PROJECT) + "/user_input/" + board;
  replies = String(PROJECT) + "/assistant_response/" + board;
  presence = "boards/" + board;
#ifdef BROKER_CA
  network.setCACert(BROKER_CA);
#endif
  mqtt.setServer(BROKER_HOST, BROKER_PORT);
  mqtt.setBufferSize(BUFFER_BYTES);
  mqtt.setKeepAlive(60);
  mqtt.setCallback(received);
}

void loop() {
  if (!mqtt.loop()) connectToBroker();
  if (question.underWay) {
    unsigned long spent = millis() - question.askedAt;
    if (spent >= GIVE_UP_MS) {
      failed("timeout", "nobody has answered in time");
    } else if (mqtt.connected() && (long)(millis() - question.sendAt) >= 0) {
      send(GIVE_UP_MS - spent);
    }
  } else if (Serial.available()) {
    question.message = Serial.readStringUntil('\n');
    question.id = String(esp_random(), HEX) + String(esp_random(), HEX);
    question.askedAt = question.sendAt = millis();
    question.pause = 500;
    question.underWay = true;
  }
  delay(5);
}
