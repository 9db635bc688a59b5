"""What the board does: join the network, and ask. Everything that is secret stands in config.py, on the board alone."""

import time
from binascii import hexlify

import config
import machine
import network

from inferbus import AskError, Inferbus


def join():
    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    wlan.connect(config.SSID, config.WIFI_PASSWORD)
    while not wlan.isconnected():
        time.sleep_ms(200)


def main():
    join()
    board = "board-" + hexlify(machine.unique_id()).decode()
    bus = Inferbus(board, config.BROKER, config.PORT, config.PROJECT, config.USER, config.PASSWORD, config.SSL)
    bus.connect()
    for question in config.QUESTIONS:
        try:
            print(bus.ask(question, config.TIMEOUT_MS))
        except AskError as failure:
            print(f"no answer, {failure.code}: {failure}")


main()
