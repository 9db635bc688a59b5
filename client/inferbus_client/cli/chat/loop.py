"""The loop of a chat: take a line, show the answer as it comes, survive what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inferbus_client.cli.chat.input import Lines
from inferbus_client.cli.chat.slash import Quit, SlashCommands
from inferbus_client.cli.chat.transcript import Said, Transcript
from inferbus_client.cli.chat.view import Shown, View
from inferbus_client.cli.lookout import Lookout
from inferbus_client.cli.waiting import Waiting
from inferbus_client.client import Client
from inferbus_client.errors import BrokerError, InferbusError
from inferbus_client.exchange.answer import Restarted
from inferbus_client.exchange.options import AskOptions
from inferbus_client.exchange.rejoining import rejoined
from inferbus_client.exits import Exit, exit_of


class ChatLoop:
    """One chat over one client.

    Attributes:
        last_status: what the last failure means for the exit status.
    """

    def __init__(self, client: Client, view: View, options: AskOptions) -> None:
        self._client = client
        self._view = view
        self._options = options
        self._lookout = Lookout(client)
        self._transcript = Transcript()
        self._commands = SlashCommands(client, view, options, self._transcript, self._lookout)
        self.last_status = Exit.OK

    def welcome(self) -> None:
        """Say where we are, and who answers here."""
        self._lookout.look()
        settings = self._client.settings
        self._view.welcome(
            settings.project, settings.broker, self._client.session, self._lookout.words(self._options.get("model"))
        )

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
            message = self._commands.run(line) if line.startswith("/") else line
            if message is not None:
                self._answer(message)
        except BrokerError:
            raise
        except InferbusError as error:
            self.last_status = exit_of(error)
            self._view.failed(error)
            return False
        return True

    def _answer(self, message: str) -> None:
        waiting = Waiting(self._client, self._lookout)
        said = self._transcript.ask(message)
        with self._view.answering(waiting.words) as shown, _marked(said, shown):
            options: AskOptions = {**self._options, **waiting.options()}
            with self._client.stream(message, **options) as deltas:
                for part in deltas if self._view.takes_back else rejoined(deltas):
                    if isinstance(part, Restarted):
                        said.answer = ""
                        shown.restart(part)
                    else:
                        said.answer += part.text
                        shown.add(part.text)
                self._commands.last_answer = deltas.result()
                shown.end(self._commands.last_answer)
        # The worker keeps it for the session from now on.
        self._options["system_prompt"] = None


@contextmanager
def _marked(said: Said, shown: Shown) -> Iterator[None]:
    """Half an answer must not look like a whole one."""
    try:
        yield
    except KeyboardInterrupt:
        said.ending = "stopped"
        shown.broke_off(said.ending)
        raise
    except InferbusError:
        said.ending = "broken off" if said.answer else "not answered"
        if said.answer:
            shown.broke_off(said.ending)
        raise
