"""Turns pip's installation report (standard input) into a file of constraints (standard output)."""

from __future__ import annotations

import json
import re
import sys

HEADER = """\
# The versions that scripts/setup installs. Made by: scripts/setup --lock
# torch and its companions are missing on purpose: vLLM pins torch itself, and where it comes from differs.
"""
UNPINNED = re.compile(r"inferbus-.*|torch|torchvision|torchaudio|torchcodec|triton|setuptools")


def main() -> None:
    report = json.load(sys.stdin)
    found = {_normal(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}
    print(HEADER + "\n".join(f"{name}=={found[name]}" for name in sorted(found) if not UNPINNED.fullmatch(name)))


def _normal(name: str) -> str:
    """The name as PyPI spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
