"""One connection to a broker, which both wings use: its thread, its packets, what becomes of them when it is lost."""
