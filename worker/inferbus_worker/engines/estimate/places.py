"""Where a model's files are: the one that is built in, a folder, a GGUF file, or the hub's cache on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from inferbus_worker.engines.estimate.strangers import NoEstimateError
from inferbus_worker.engines.vllm.arguments import DEMO, DEMO_PATH

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def find(model: str) -> Path:
    """The folder of a model's files, or its GGUF file. Downloads nothing.

    Raises:
        NoEstimateError: there is no such model on this machine.
    """
    path = DEMO_PATH if model == DEMO else Path(model).expanduser()
    try:
        if path.is_dir():
            return _in_folder(model, path)
        if path.is_file():
            return _only_gguf(model, path)
    except (OSError, ValueError) as error:  # a NUL, or a name that no file system takes
        raise NoEstimateError(model, f"There is no model at {model}: {error}.") from error
    if _HUB_ID.fullmatch(model) and not model.endswith(".gguf"):  # a file's name, as no model's on the hub is
        return _in_cache(model)
    raise NoEstimateError(model, f"There is no folder or file {model}.")


def _in_folder(model: str, folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    gguf = sorted(file for file in folder.glob("*.gguf") if file.is_file())
    if len(gguf) == 1:
        return gguf[0]
    if gguf:
        names = ", ".join(file.name for file in gguf[:5])
        raise NoEstimateError(model, f"{folder} has {len(gguf)} GGUF files ({names}); name the one that is meant.")
    if (folder / "params.json").is_file():
        raise NoEstimateError(model, f"{folder} has a params.json, Mistral's own form, which is not read here.")
    raise NoEstimateError(model, f"There is no model in {folder}: it has no config.json, and no GGUF file.")


def _only_gguf(model: str, file: Path) -> Path:
    if file.suffix == ".gguf":
        return file
    hint = "; name the folder that it is in" if file.suffix in {".json", ".safetensors"} else ""
    raise NoEstimateError(model, f"{file} is a file, and no .gguf{hint}.")


def _in_cache(model: str) -> Path:
    unseen = f"There is no folder {model}, and the hub's cache on this machine holds no model of that name"
    try:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - takes half a second, comes with vLLM
        from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    except ImportError:
        raise NoEstimateError(model, f"There is no folder {model}, and the hub's cache cannot be read here.") from None
    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        raise NoEstimateError(model, f"There is no folder {model}, and no hub has such a name.") from None
    if not isinstance(found, str):
        raise NoEstimateError(model, f"{unseen}: download it first, or name a folder.")
    return Path(found).parent
