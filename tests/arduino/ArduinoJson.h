// As much of ArduinoJson 7 as examples/arduino uses: flat objects, over cJSON, which comes with Mosquitto.
#pragma once
#include <type_traits>

#include "Arduino.h"

extern "C" {
struct cJSON {  // as far as it is read here
  cJSON *next, *prev, *child;
  int type;
  char* valuestring;
  int valueint;
  double valuedouble;
};
cJSON* cJSON_CreateObject();
cJSON* cJSON_ParseWithLength(const char* text, size_t length);
cJSON* cJSON_GetObjectItemCaseSensitive(const cJSON*, const char* key);
cJSON* cJSON_AddStringToObject(cJSON*, const char* key, const char* text);
cJSON* cJSON_AddNumberToObject(cJSON*, const char* key, double number);
char* cJSON_PrintUnformatted(const cJSON*);
int cJSON_IsString(const cJSON*);
int cJSON_IsNumber(const cJSON*);
int cJSON_IsBool(const cJSON*);
int cJSON_IsTrue(const cJSON*);
void cJSON_Delete(cJSON*);
void cJSON_free(void*);
}

class JsonVariant {
 public:
  JsonVariant(cJSON* object, const char* key) : object_(object), key_(key) {}
  void operator=(const char* text) { cJSON_AddStringToObject(object_, key_, text); }
  void operator=(const String& text) { cJSON_AddStringToObject(object_, key_, text.c_str()); }
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  void operator=(Number number) {
    cJSON_AddNumberToObject(object_, key_, number);
  }
  const char* operator|(const char* otherwise) const { return cJSON_IsString(item()) ? item()->valuestring : otherwise; }
  unsigned long operator|(unsigned long otherwise) const {
    return cJSON_IsNumber(item()) ? item()->valuedouble : otherwise;
  }
  bool operator|(bool otherwise) const { return cJSON_IsBool(item()) ? cJSON_IsTrue(item()) : otherwise; }
  bool operator==(const char* text) const { return cJSON_IsString(item()) && !std::strcmp(item()->valuestring, text); }
  bool operator!=(const String& text) const { return !(*this == text.c_str()); }

 private:
  const cJSON* item() const { return cJSON_GetObjectItemCaseSensitive(object_, key_); }
  cJSON* object_;
  const char* key_;
};

class JsonDocument {
 public:
  ~JsonDocument() { cJSON_Delete(object); }
  JsonVariant operator[](const char* key) { return {object, key}; }
  cJSON* object = cJSON_CreateObject();
};

inline void serializeJson(const JsonDocument& document, String& text) {
  char* written = cJSON_PrintUnformatted(document.object);
  text = written;
  cJSON_free(written);
}

// True where it is no JSON, as DeserializationError is.
inline bool deserializeJson(JsonDocument& document, const uint8_t* text, size_t length) {
  cJSON_Delete(document.object);
  document.object = cJSON_ParseWithLength(reinterpret_cast<const char*>(text), length);
  return !document.object;
}
