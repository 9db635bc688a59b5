"""vLLM's own command line: which options it gets, what is preset, and what is wrong with a model's name."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from inferbus_client.contract.wire.requests import MAX_STOPS
from inferbus_client.settings.flags import flags_of
from inferbus_client.settings.sources import nearest
from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.vllm.errors import reason
from inferbus_worker.engines.vllm.measure import EXTENSION
from inferbus_worker.engines.vllm.orphan_guard import WORKER_PID
from inferbus_worker.settings.vllm_options import flag
from inferbus_worker.settings.worker import Settings

#: The model that comes with the package.
DEMO = "demo"
DEMO_PATH = Path(__file__).resolve().parents[2] / "demo_model"

#: Tuned for a model of a few million parameters: compiling takes longer than it ever saves, bfloat16 is emulated.
_DEMO_ON_CPU = {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 64}


_UNKNOWN = re.compile(r"unrecognized arguments: (--[\w.-]+)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HUB_TIMEOUT = 10.0  # seconds
#: What makes a directory a model; the second is Mistral's.
_CONFIGURATIONS = ("config.json", "params.json")


def prepare_environment() -> None:
    """Set what vLLM reads when it is imported; what the user has set stays."""
    presets = {
        # Its loggers then propagate to the root, where the worker's own handler is.
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # As many as the contract takes; vLLM would take 4.
        "VLLM_MAX_STOP_STRINGS": str(MAX_STOPS),
        # Its grammar compiler prints what it thinks of a requester's schema.
        "LLGUIDANCE_LOG_LEVEL": "0",
        # Forking a process with running threads copies locks that nobody will ever release.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Its workers do not always end when asked; SIGTERM follows after this many seconds.
        "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "1",
        # In its processes, what is for vLLM's developers.
        "PYTHONWARNINGS": "ignore",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    if not sys.stderr.isatty():
        presets["TQDM_DISABLE"] = "1"
    for name, value in presets.items():
        os.environ.setdefault(name, value)
    os.environ[WORKER_PID] = str(os.getpid())
    if allowed := os.environ.get("VLLM_PLUGINS"):
        os.environ["VLLM_PLUGINS"] = ",".join({*allowed.split(","), "inferbus_orphan_guard"})


def parse_options(model: str, options: Sequence[str], places: Mapping[str, str] | None = None) -> Namespace:
    """Let vLLM's own parser read `options`, as `vllm serve MODEL [options]` would.

    Args:
        model: as the operator named it.
        options: vLLM's.
        places: where those stand that come from a file, by name.

    Raises:
        SystemExit: status 2, after vLLM's message about a wrong option is on standard error.
    """
    prepare_environment()
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args  # noqa: PLC0415
    from vllm.exceptions import VLLMError  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    usage = "inferbus serve MODEL [options] [any option of vLLM]"
    parser = make_arg_parser(FlexibleArgumentParser(prog="inferbus serve", usage=usage))
    parser.set_defaults(**_defaults(model))
    _say_more(parser, places or {})
    arguments: Namespace = parser.parse_args(list(options))
    if arguments.model_tag is not None:
        parser.error(f"unexpected argument: {arguments.model_tag}; MODEL stands before any option of vLLM's")
    try:
        validate_parsed_serve_args(arguments)
    except (TypeError, ValueError, VLLMError) as error:
        parser.error(reason(error).removeprefix("Error: "))
    # The worker has its own statistics; vLLM's would cost time on every step and go nowhere.
    arguments.disable_log_stats = True
    arguments.worker_extension_cls = arguments.worker_extension_cls or EXTENSION
    if arguments.structured_outputs_config.backend == "auto":
        # That leaves the choice, for all requests to come, to the first schema that somebody sends. This one compiles
        # no more of a grammar than the answer reaches, and gives up where the others take minutes.
        arguments.structured_outputs_config.backend = "guidance"
    return arguments


def _say_more(parser: ArgumentParser, places: Mapping[str, str]) -> None:
    """Let the parser say where an option stands that it complains of, and which one is meant by one that is none."""
    complain = parser.error
    # vLLM gets whatever we do not know, slips of our own options too.
    known = [*flags_of(Settings), *parser._option_string_actions]  # noqa: SLF001

    def error(message: str) -> NoReturn:
        if (unknown := _UNKNOWN.search(message)) is not None:
            message += nearest(unknown[1], known)
        # The longest name first: `max_model_len` begins others.
        for name in sorted(places, key=len, reverse=True):
            if f"{flag(name)}" in message:
                complain(f"{places[name]}: vllm.{name}: {message}")
        complain(message)

    parser.error = error  # type: ignore[method-assign]


def _defaults(model: str) -> dict[str, Any]:
    """What holds unless the user says otherwise."""
    if model != DEMO:
        return {"model": model, "use_tqdm_on_load": False}
    demo = {"model": str(DEMO_PATH), "served_model_name": [DEMO], "use_tqdm_on_load": False}
    return demo | _DEMO_ON_CPU if _is_cpu() else demo


def _is_cpu() -> bool:
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu():
        return False
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; the default is sized for real models
    return True


def served_name(arguments: Namespace) -> str:
    """The name under which vLLM serves the model."""
    names = arguments.served_model_name
    return str(names[0] if names else arguments.model)


def check_model(model: str) -> None:
    """Refuse at once what cannot be a model, before minutes are spent on it.

    Raises:
        EngineStartError: there is no such model.
    """
    path = DEMO_PATH if model == DEMO else Path(model).expanduser()
    if path.exists():
        if path.is_dir() and not any((path / name).exists() for name in _CONFIGURATIONS):
            raise EngineStartError(f"There is no model in {path}: it has no config.json.")
    elif _is_path(model):
        raise EngineStartError(f"There is no model at {path}.")
    elif _HUB_ID.fullmatch(model) and "VLLM_USE_MODELSCOPE" not in os.environ:
        _check_hub(model)


def _is_path(model: str) -> bool:
    return model == DEMO or model.startswith(("/", ".", "~")) or ("://" not in model and model.count("/") > 1)


def _check_hub(model: str) -> None:
    """Ask the hub once, where vLLM would retry for half a minute, unless the model is in the cache."""
    from huggingface_hub import model_info, try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError  # noqa: PLC0415

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return
    try:
        model_info(model, timeout=_HUB_TIMEOUT)
    except GatedRepoError:
        raise EngineStartError(f"The model {model} is gated: log in to the model hub with an account for it.") from None
    except RepositoryNotFoundError:
        raise EngineStartError(f"There is no directory {model}, and no such model on the model hub.") from None
    except OfflineModeIsEnabled:
        raise EngineStartError(f"The model {model} is not in the cache, and the model hub is off.") from None
    except Exception as error:  # its HTTP library's own, which changes between releases
        raise EngineStartError(f"The model hub cannot be asked for {model}: {reason(error)}.") from error
