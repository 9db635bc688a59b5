#pragma once
#include "Arduino.h"

class Client {};
class WiFiClient : public Client {};
enum { WL_CONNECTED = 3 };
class WiFiClass {
 public:
  void begin(const char*, const char*) {}
  int status() { return WL_CONNECTED; }
  String macAddress() { return "02:00:00:00:00:01"; }
};
inline WiFiClass WiFi;
