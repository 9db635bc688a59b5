"""No process of the engine outlives the worker, heeds a signal that is meant for it, or logs in a way of its own.

vLLM runs the model in processes of its own, which go on burning a core for ever when the worker is killed with
SIGKILL. vLLM calls `register` in every process it starts, through the entry points that the worker declares:
`vllm.platform_plugins`, which comes seconds after the process began, and `vllm.general_plugins`, just before
the model is loaded. In the worker itself `register` does nothing.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading

from inferbus_worker.engines.vllm.output import MarkedRecords

#: The process whose end is the end of every engine process; set by the worker before it starts them.
WORKER_PID = "INFERBUS_WORKER_PID"
#: What a terminal or a supervisor sends to the whole process group.
GROUP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})

#: Where the kernel has no pidfd: seconds between looks at who our parent is.
_POLL_SECONDS = 0.5
_THREAD_NAME = "orphan-guard"
_GRAMMARS = "vllm.v1.structured_output"
_SCHEDULER = "vllm.v1.core.sched.scheduler"


def register() -> None:
    """Tie this process' life to the worker's; a no-op in the worker and when called again."""
    worker = int(os.environ.get(WORKER_PID, "0"))
    if worker in (0, os.getpid()) or _is_guarded():
        return
    _send_records_to_the_worker()
    _leave_the_workers_process_group()
    parent = os.getppid()
    threading.Thread(target=_die_with, args=({worker, parent},), name=_THREAD_NAME, daemon=True).start()


def _is_guarded() -> bool:
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())


def _send_records_to_the_worker() -> None:
    """The worker logs the same warnings, from the same configuration; only errors are this process' own."""
    root = logging.getLogger()
    root.handlers[:] = [MarkedRecords()]
    root.setLevel(logging.ERROR)
    # What fails there is a requester's schema, and the requester is told.
    logging.getLogger(_GRAMMARS).setLevel(logging.CRITICAL)
    logging.getLogger(_SCHEDULER).addFilter(lambda record: "grammar" not in str(record.msg))


def _leave_the_workers_process_group() -> None:
    """Make Ctrl-C at a terminal the worker's business alone.

    It reaches the whole foreground group, and an engine that heeds it aborts what the worker is still draining.
    The worker blocks these signals while it starts us, so whatever arrived before now is pending: ignoring a
    pending signal discards it. Afterwards SIGTERM means what vLLM wants it to mean, "stop now".
    """
    os.setpgid(0, 0)
    if threading.current_thread() is not threading.main_thread():
        return
    for number in GROUP_SIGNALS:
        handler = signal.signal(number, signal.SIG_IGN)
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def _die_with(processes: set[int]) -> None:
    """Wait until the first of `processes` ends, then end this one, with no last words that could hang."""
    try:
        _wait_for_any_end(processes)
    except ProcessLookupError:
        pass  # it was gone before we looked
    except (OSError, AttributeError):
        _wait_for_a_new_parent()
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_any_end(processes: set[int]) -> None:
    poll = select.poll()
    for process in processes:
        # A pidfd becomes readable when its process ends, also while nobody has reaped it.
        poll.register(os.pidfd_open(process), select.POLLIN)
    poll.poll()


def _wait_for_a_new_parent() -> None:
    """For kernels without pidfd: whoever loses its parent is handed to another one."""
    parent, pause = os.getppid(), threading.Event()
    while os.getppid() == parent:
        pause.wait(_POLL_SECONDS)
