"""The exam's results as the table in the model's README."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

BEGIN: Final = "<!-- written by scripts/train-demo-model: the exam's results -->"
END: Final = "<!-- end of the results -->"


class Result(NamedTuple):
    """How many of one group of conversations ended with the right answer."""

    group: str
    right: int
    asked: int


def write(readme: Path, results: Iterable[Result]) -> bool:
    """Put the results where ``readme`` has its table; False where there is no such file."""
    if not readme.exists():
        return False
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = (f"| {result.group} | {result.right} of {result.asked} |" for result in results)
    table = "\n".join(("| asked | right |", "|---|---|", *rows))
    readme.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    return True
