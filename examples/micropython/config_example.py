"""Copy it to the board as config.py, fill it in, and keep it out of version control."""

SSID = ""
WIFI_PASSWORD = ""
BROKER = "broker.local"
PORT = 8883
PROJECT = "general"
USER = ""  # the board's own
PASSWORD = ""
# context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), then context.load_verify_locations(cafile=...) with the authority
SSL = None
TIMEOUT_MS = 60000
QUESTIONS = ["What is MQTT?"]
