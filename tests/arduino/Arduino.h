// As much of Arduino as examples/arduino uses, for a computer: the serial port is standard input and output.
#pragma once
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>

using std::min;
enum Base { DEC = 10, HEX = 16 };

class String : public std::string {
 public:
  String(const char* text = "") : std::string(text) {}
  String(const std::string& text) : std::string(text) {}
  String(uint32_t number, Base base) {
    char digits[16];
    std::snprintf(digits, sizeof digits, base == HEX ? "%x" : "%u", number);
    assign(digits);
  }
};
inline String operator+(const String& left, const char* right) { return std::string(left) + right; }
inline String operator+(const String& left, const String& right) { return std::string(left) + std::string(right); }
inline String operator+(const char* left, const String& right) { return left + std::string(right); }

class SerialPort {
 public:
  int lines = 0;  // written so far
  void begin(unsigned long) {}
  int available() {
    pollfd in{0, POLLIN, 0};
    return ::poll(&in, 1, 0) > 0 && (in.revents & POLLIN) && !at_end_;
  }
  String readStringUntil(char end) {
    std::string line;
    char next;
    while (!(at_end_ = ::read(0, &next, 1) != 1) && next != end) line += next;
    return line;
  }
  void write(char byte) { std::fputc(byte, stdout); }
  void println() {
    std::fputc('\n', stdout);
    std::fflush(stdout);
    lines++;
  }

 private:
  bool at_end_ = false;
};
inline SerialPort Serial;

inline unsigned long millis() {
  using namespace std::chrono;
  static const auto start = steady_clock::now();
  return duration_cast<milliseconds>(steady_clock::now() - start).count();
}
inline void delay(unsigned long ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }
inline uint32_t esp_random() { return std::random_device{}(); }
inline long random(long below) { return esp_random() % below; }
