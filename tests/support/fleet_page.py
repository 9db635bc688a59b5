"""What docs/fleet.md says of vLLM's options, for those who check it with and without vLLM."""

from __future__ import annotations

import re

from fleet_simulation.page import PAGE


def vllm_options() -> list[str]:
    """Lines of `vllm:`, one for each option that the page names."""
    _, _, section = PAGE.read_text().partition("\n## One model on many GPUs\n")
    cells = re.findall(r"^\| (`\w+: .*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    return [line for cell in cells for line in re.findall(r"`(\w+: [^`]+)`", cell)]
