"""Settings in pairs: what cannot be meant together, and what has no effect beside the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inferbus_client.errors import ConflictError
from inferbus_client.settings.sources import nearest

if TYPE_CHECKING:
    from inferbus_worker.settings.worker import Settings


def conflicts(settings: Settings) -> Iterator[ConflictError]:
    """What cannot be meant, each in a sentence."""
    if settings.ack == "after-reply" and settings.request_qos == 0:
        yield ConflictError(
            "--ack after-reply needs --request-qos 1: QoS 0 has no acknowledgement", "ack", "request_qos"
        )
    if settings.ack == "after-reply" and settings.session_expiry < 1:
        yield ConflictError(
            "--ack after-reply needs a --session-expiry of 1s or more: else the broker keeps nothing for a worker "
            "that is away",
            *("ack", "session_expiry"),
        )
    if settings.max_history_bytes < settings.max_message_bytes:
        yield ConflictError(
            "max_history_bytes must be max_message_bytes or more: else a message that is taken cannot be remembered",
            *("max_history_bytes", "max_message_bytes"),
        )
    if settings.max_intake_bytes < 2 * settings.max_message_bytes:
        yield ConflictError(
            "max_intake_bytes must be twice max_message_bytes or more: else a message that is allowed finds no room",
            *("max_intake_bytes", "max_message_bytes"),
        )
    if settings.max_intake_bytes < 2 * settings.conversation_bytes:
        yield ConflictError(
            "max_intake_bytes must be twice max_conversation_bytes or more: else a conversation that is allowed finds "
            "no room",
            *("max_intake_bytes", "max_conversation_bytes"),
        )
    if settings.gateways and settings.identity == "none":
        yield ConflictError(
            "--gateway needs --identity topic: else no topic says that a request is a gateway's",
            *("gateways", "identity"),
        )
    if settings.http_token_file is not None and settings.http is None:
        yield ConflictError("--http-token-file is for --http, which is off", "http_token_file", "http")
    yield from _two_passwords(settings)
    yield from _budgets_too_small(settings)
    yield from _wrong_models(settings)
    yield from _elsewhere(settings)


def _two_passwords(settings: Settings) -> Iterator[ConflictError]:
    """The store's password in more than one place, or with no place that it could be for."""
    given = [name for name in ("state_password", "state_file") if getattr(settings, name) is not None]
    if settings.state is not None and settings.state.password is not None and given:
        yield ConflictError(f"state has a password, and {given[0]} is there too: say one", "state", *given)
    elif len(given) > 1:
        yield ConflictError("state_password and state_file: say one", *given)
    elif given == ["state_password"] and settings.state is None:
        yield ConflictError("state_password is for --state, which names no store", *given)


def _elsewhere(settings: Settings) -> Iterator[ConflictError]:
    """Models that others are to serve, where there are no others, or nothing is left for this worker."""
    models = settings.models
    for name, model in models.items():
        if model.elsewhere and not settings.is_shared:
            yield ConflictError(
                f"models.{name} is elsewhere, and without --state this worker is in no group", "models", "state"
            )
    if models and all(model.elsewhere for model in models.values()):
        yield ConflictError("every model is elsewhere: this worker would run nothing", "models")


def _wrong_models(settings: Settings) -> Iterator[ConflictError]:
    """What projects say of models, and what is said of them in two places."""
    models = settings.models
    if settings.backend is not None and models:
        yield ConflictError("--backend is for one MODEL; below models: each slot says its own", "backend", "models")
    if settings.backend is not None and "engine" in settings.model_fields_set:
        yield ConflictError(
            f"--engine {settings.engine} is for a MODEL in this process, --backend for one elsewhere: say one",
            *("engine", "backend"),
        )
    for name, project in settings.projects.items():
        if project.model is None and len(models) > 1:
            first = next(iter(models))
            yield ConflictError(
                f"projects.{name}.model: which of the {len(models)} models answers? Say, for example, model: {first}",
                *("models", "projects"),
            )
        if not models and (project.model is not None or project.models):
            yield ConflictError(
                f"projects.{name}: model and models name entries of models:, and there are none", "projects", "models"
            )
        for wanted in filter(None, [project.model, *project.models]):
            if models and wanted not in models:
                known = ", ".join(models)
                yield ConflictError(
                    f"projects.{name}: there is no model {wanted}{nearest(wanted, models)}; models: has {known}",
                    *("projects", "models"),
                )
    most = settings.max_workers
    if most is not None and "workers" in settings.model_fields_set and most < settings.workers:
        yield ConflictError(
            f"--workers {settings.workers} at rest are more than there may be: --max-workers is {most}",
            *("workers", "max_workers"),
        )
    if settings.max_workers is not None and settings.max_workers < len(models):
        yield ConflictError(
            f"--max-workers {settings.max_workers} are too few for {len(models)} models: each needs one",
            *("max_workers", "models"),
        )


def _budgets_too_small(settings: Settings) -> Iterator[ConflictError]:
    """A conversation that has grown to its full length must still be answered, whatever else the budget refuses."""
    if settings.token_budget is None:
        return
    for project in settings.projects:
        least = settings.max_history_tokens + settings.max_tokens_of(project)
        if least >= settings.token_budget.limit:
            yield ConflictError(
                f"token_budget: {settings.token_budget.limit} tokens must be more than max_history_tokens and "
                f"max_tokens together, which are {least} in project {project}",
                *("token_budget", "max_history_tokens", "max_tokens"),
            )


def missing_files(settings: Settings) -> list[str]:
    """A sentence for each path to a model that is a file's by its looks, where there is none."""
    found = ((name, place.path) for name, one in settings.models.items() for place in one.places if place.path)
    return [
        f"models.{name}: there is nothing at {path}, its path{_seen_from(path)}"
        for name, path in dict.fromkeys(found)
        if (path.startswith(("/", "./", "../", "~")) or path.endswith(".gguf"))
        and not os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111 - a home that is none stays as it is
    ]


def _seen_from(path: str) -> str:
    return "" if path.startswith(("/", "~")) else f", as seen from {Path.cwd()}"


def without_effect(settings: Settings) -> list[str]:
    """A sentence for each setting that was given and changes nothing."""
    idle: dict[str, tuple[str, ...]] = {"--state": () if settings.is_shared else ("group", "lease")}
    if settings.ack != "after-reply":
        idle["--ack after-reply"] = ("session_expiry", "max_attempts", "state_dir")
    if settings.backend is None:
        idle["--backend"] = ("url", "api_key_env", "api_key_file")
    has_slots = bool(settings.models) or settings.backend is not None
    if not has_slots:
        idle["models: in the file, or --backend"] = ("slot_timeout", "max_retries", "retry_for")
    elif not settings.max_retries:
        idle["--max-retries 1 or more"] = ("retry_for",)
    if not any(place.is_managed for model in settings.models.values() for place in model.places):
        idle["a server that the worker starts (manage or path, below models:)"] = ("memory_budget",)
    if settings.engine != "simulated" or has_slots:
        simulated = (name for name in type(settings).model_fields if name.startswith("simulated_"))
        idle["--engine simulated"] = tuple(simulated)
    said = _idle(settings, idle)
    if settings.models:
        said += [
            f"--{name} has no effect beside models: in the file, where each slot says its own"
            for name in ("engine", "concurrency")
            if name in settings.model_fields_set
        ]
    if settings.vllm and settings.engine != "vllm":
        said.append("vllm in the file has no effect without --engine vllm")
    elif settings.vllm and has_slots:
        said.append("vllm in the file has no effect beside models: or --backend; a slot's options stand below it")
    return [*said, *_unreached(settings)]


def _unreached(settings: Settings) -> Iterator[str]:
    """A sentence for each model that no project's requests get to."""
    reached = settings.reached_models
    for name in settings.models:
        if name not in reached:
            yield f"models.{name} is not started: no project names it, and it stands in for none that is named"


def _idle(settings: Settings, idle: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [
        f"--{name.replace('_', '-')} has no effect without {needed}"
        for needed, names in idle.items()
        for name in names
        if name in settings.model_fields_set
    ]
