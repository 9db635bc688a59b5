"""What goes over the bus: topics, requests and replies, presence and stats. It knows no MQTT library and no thread."""
