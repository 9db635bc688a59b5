// A board on a computer: runs the sketch until it has written as many lines as the first argument says.
#include "Arduino.h"
#include "arduino.ino"

int main(int, char** arguments) {
  setup();
  while (Serial.lines < std::atoi(arguments[1])) loop();
}
