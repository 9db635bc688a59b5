"""A robot that is told in plain words where to go, and gets each command in a form that it can trust.

    python robot.py "Go three steps ahead." "Now turn left."

Where: INFERBUS_BROKER, INFERBUS_PROJECT, INFERBUS_USERNAME and INFERBUS_PASSWORD in the environment. The project has to
allow `response_format`. Exit status: 0 every command was carried out, 1 some were not, 3 no broker.
"""

from __future__ import annotations

import sys
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inferbus_client import BrokerError, Client, InferbusError, RequestFailedError
from inferbus_client.shown import shown_in_line

PROMPT: Final = "You steer a robot. Answer each order with one command, as a JSON object."


class Command(BaseModel):
    """What the robot can do: so many steps ahead or back, so many quarter turns, or nothing."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["forward", "back", "left", "right", "stop"]
    times: int = Field(ge=1, le=9)


#: A model that is held to this can write nothing else; what it means by it is another matter.
FORM: Final = {"type": "json_schema", "json_schema": {"name": "command", "schema": Command.model_json_schema()}}


class Robot:
    """Where it stands and looks, on a grid; a real one has motors here, and limits of its own."""

    def __init__(self) -> None:
        self._place, self._heading = 0j, 1j  # looking north

    def carry_out(self, command: Command) -> None:
        match command.action:
            case "forward":
                self._place += self._heading * command.times
            case "back":
                self._place -= self._heading * command.times
            case "left":
                self._heading *= 1j**command.times
            case "right":
                self._heading *= (-1j) ** command.times
            case "stop":
                pass

    def __str__(self) -> str:
        looks = {1j: "north", 1: "east", -1j: "south", -1: "west"}[self._heading]
        return f"at {self._place.real:g}, {self._place.imag:g}, looking {looks}"


def understood(client: Client, order: str) -> Command:
    """The command that the model makes of an order.

    Raises:
        ValidationError: it is none. A server may ignore the form, and an answer may be cut before its end.
        InferbusError: there is no answer. What may succeed later, the client has tried again by itself.
    """
    # JSON allows blanks between its parts, and a small model that is held to it may write nothing else any more.
    params = {"response_format": FORM, "frequency_penalty": 1}
    answer = client.ask(order, session="robot", system_prompt=PROMPT, temperature=0, max_tokens=64, params=params)
    return Command.model_validate_json(answer.text)


def main(orders: list[str]) -> int:
    robot, status = Robot(), 0
    try:
        with Client() as client:
            for order in orders:
                try:
                    command = understood(client, order)
                except ValidationError:
                    problem = "the answer is no command"
                except RequestFailedError as error:
                    problem = f"{error.code}: {error}"
                except BrokerError:
                    raise
                except InferbusError as error:  # nobody has answered in time
                    problem = str(error)
                else:
                    robot.carry_out(command)
                    print(f"{command.action} {command.times}: {robot}", flush=True)
                    continue
                # Whatever went wrong, a robot that does not know what to do stands still.
                print(f"standing still, {shown_in_line(problem)}", flush=True)
                status = 1
    except BrokerError as error:
        print(f"no broker: {error}", file=sys.stderr)
        return 3
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
