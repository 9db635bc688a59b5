// PubSubClient's verbs over libmosquitto, with its limits: it publishes at QoS 0, and a packet that is larger than the
// buffer is not sent, and not handed over.
#pragma once
#include "WiFi.h"

// Declared here, since machines with Mosquitto's clients have the library and not its headers.
extern "C" {
struct mosquitto;
struct mosquitto_message {
  int mid;
  char* topic;
  void* payload;
  int payloadlen, qos;
  bool retain;
};
int mosquitto_lib_init();
mosquitto* mosquitto_new(const char* id, bool clean_session, void* user);
void mosquitto_destroy(mosquitto*);
int mosquitto_username_pw_set(mosquitto*, const char* user, const char* password);
int mosquitto_will_set(mosquitto*, const char* topic, int length, const void* payload, int qos, bool retain);
int mosquitto_connect(mosquitto*, const char* host, int port, int keepalive);
int mosquitto_loop(mosquitto*, int timeout_ms, int max_packets);
int mosquitto_publish(mosquitto*, int* mid, const char* topic, int length, const void* payload, int qos, bool retain);
int mosquitto_subscribe(mosquitto*, int* mid, const char* topic, int qos);
void mosquitto_connect_callback_set(mosquitto*, void (*)(mosquitto*, void* user, int code));
void mosquitto_message_callback_set(mosquitto*, void (*)(mosquitto*, void* user, const mosquitto_message*));
}

class PubSubClient {
 public:
  explicit PubSubClient(Client&) { mosquitto_lib_init(); }
  PubSubClient& setServer(const char* host, uint16_t port) { return host_ = host, port_ = port, *this; }
  PubSubClient& setKeepAlive(uint16_t seconds) { return keepalive_ = seconds, *this; }
  PubSubClient& setCallback(void (*callback)(char*, uint8_t*, unsigned int)) { return callback_ = callback, *this; }
  bool setBufferSize(uint16_t size) { return buffer_ = size, true; }
  bool connected() { return connected_; }

  bool connect(const char* id, const char* user, const char* password, const char* will_topic, uint8_t will_qos,
               bool will_retain, const char* will, bool clean_session) {
    if (mqtt_) mosquitto_destroy(mqtt_);
    mqtt_ = mosquitto_new(id, clean_session, this);
    if (user && *user) mosquitto_username_pw_set(mqtt_, user, password);
    mosquitto_will_set(mqtt_, will_topic, std::strlen(will), will, will_qos, will_retain);
    mosquitto_connect_callback_set(
        mqtt_, [](mosquitto*, void* self, int code) { static_cast<PubSubClient*>(self)->connected_ = code == 0; });
    mosquitto_message_callback_set(mqtt_, [](mosquitto*, void* self, const mosquitto_message* message) {
      static_cast<PubSubClient*>(self)->hand_over(*message);
    });
    if (mosquitto_connect(mqtt_, host_, port_, keepalive_)) return false;
    for (unsigned long start = millis(); !connected_ && millis() - start < 15000;) {
      if (mosquitto_loop(mqtt_, 100, 1)) return false;
    }
    return connected_;
  }

  bool loop() {
    if (connected_ && mosquitto_loop(mqtt_, 0, 1)) connected_ = false;
    return connected_;
  }

  bool publish(const char* topic, const char* payload, bool retained = false) {
    return connected_ && fits(topic, std::strlen(payload)) &&
           !mosquitto_publish(mqtt_, nullptr, topic, std::strlen(payload), payload, 0, retained);
  }

  bool subscribe(const char* topic, uint8_t qos) { return !mosquitto_subscribe(mqtt_, nullptr, topic, qos); }

 private:
  bool fits(const char* topic, size_t length) const { return 5 + 2 + std::strlen(topic) + length <= buffer_; }
  void hand_over(const mosquitto_message& message) {
    if (!fits(message.topic, message.payloadlen)) return;
    callback_(message.topic, static_cast<uint8_t*>(message.payload), message.payloadlen);
  }

  mosquitto* mqtt_ = nullptr;
  const char* host_ = "";
  uint16_t port_ = 0, keepalive_ = 15, buffer_ = 256;
  bool connected_ = false;
  void (*callback_)(char*, uint8_t*, unsigned int) = nullptr;
};
