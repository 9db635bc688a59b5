// What the tests say in place of secrets, when the sketch runs.
#pragma once
#include <cstdlib>

#define WIFI_NAME ""
#define WIFI_PASSWORD ""
#define BROKER_HOST std::getenv("MQTT_HOST")
#define BROKER_PORT std::atoi(std::getenv("MQTT_PORT"))
#define BROKER_USER ""
#define BROKER_PASSWORD ""
#define PROJECT std::getenv("INFERBUS_PROJECT")
#define GIVE_UP_MS std::strtoul(std::getenv("GIVE_UP_MS"), nullptr, 10)
