"""An agent for a greenhouse: it answers in words, and looks and acts by calling these functions.

    python agent.py "It is dark in the north house. Do something about it."

Where: INFERBUS_BROKER, INFERBUS_PROJECT and the rest of INFERBUS_… in the environment. The project has to allow tools.
Exit status: 0 answered, 1 not, 3 no broker.
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from pydantic import Field

from inferbus_client import BrokerError, Client, InferbusError, ToolError

House = Annotated[Literal["north", "south"], Field(description="which greenhouse")]
#: Degrees Celsius and whether the lamps are on; a real one asks its sensors.
STATE = {"north": [14.5, False], "south": [22.0, True]}


def temperature(house: House) -> float:
    """How warm it is in a greenhouse, in degrees Celsius."""
    return STATE[house][0]


def switch_lamps(house: House, *, on: bool) -> str:
    """Switch the lamps of a greenhouse on or off."""
    if STATE[house][1] == on:
        raise ToolError(f"they are {'on' if on else 'off'} already")  # the model is told, and may think again
    STATE[house][1] = on
    return f"the lamps of the {house} house are {'on' if on else 'off'} now"


def main(question: str) -> int:
    try:
        with Client() as client:
            print(client.ask(question, tools=[temperature, switch_lamps], run_tools=True).text)
    except InferbusError as error:
        print(f"agent: {error}", file=sys.stderr)
        return 3 if isinstance(error, BrokerError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or "How warm is it in the north house?"))
