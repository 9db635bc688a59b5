"""The loop of a chat: take a line, show the answer as it comes, survive what goes wrong."""

from __future__ import annotations

from inferbus_client.cli.chat.input import Lines
from inferbus_client.cli.chat.slash import Quit, SlashCommands
from inferbus_client.cli.chat.view import View
from inferbus_client.cli.exits import Exit, exit_of
from inferbus_client.client import Client
from inferbus_client.errors import BrokerError, InferbusError
from inferbus_client.options import AskOptions


class Conversation:
    """One chat over one client.

    Attributes:
        last_status: what the last failure means for the exit status.
    """

    def __init__(self, client: Client, view: View, options: AskOptions) -> None:
        self._client = client
        self._view = view
        self._options = options
        self._commands = SlashCommands(client, view, options)
        self.last_status = Exit.OK

    def talk(self, lines: Lines) -> Exit:
        """Talk until the person leaves. Ctrl-C stops an answer; two in a row leave."""
        interrupted = False
        while True:
            try:
                line = next(lines, None)
                if line is None:
                    return Exit.OK
                interrupted = False
                self._respond(line)
            except Quit:
                return Exit.OK
            except KeyboardInterrupt:
                if interrupted:
                    return Exit.INTERRUPTED
                interrupted = True
                self._view.note("Ctrl-C again leaves.")

    def answer_all(self, lines: Lines) -> bool:
        """Answer lines from a pipe or from -q; returns whether every one was answered."""
        try:
            answered = [self._respond(line) for line in lines]
        except Quit:
            return self.last_status is Exit.OK
        return all(answered)

    def _respond(self, line: str) -> bool:
        """Answer one line; returns whether that went well."""
        if not line.strip():
            return True
        try:
            if line.startswith("/"):
                self._commands.run(line)
            else:
                self._answer(line)
        except BrokerError:
            raise
        except InferbusError as error:
            self.last_status = exit_of(error)
            self._view.failed(error)
            return False
        return True

    def _answer(self, message: str) -> None:
        with self._view.answering() as shown:
            options: AskOptions = {**self._options, "on_accepted": shown.accepted}
            with self._client.stream(message, **options) as deltas:
                for delta in deltas:
                    shown.add(delta.text)
                shown.end(deltas.result())
        # The worker keeps it for the session from now on.
        self._options["system_prompt"] = None
