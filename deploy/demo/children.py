"""Child processes that never outlive the demo."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

STOP_WITHIN = 20  # seconds: services finish or hand back what they hold before they go
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Why the demo stops, in one line."""


def say(message):
    print(f"demo: {message}", file=sys.stderr, flush=True)


def start(stack, command, log, stop_with):
    """Starts a child that ends with this script, on every way out of it (on Linux, when it is killed too)."""
    parent = os.getpid()

    def end_with_parent():
        if LIBC:
            LIBC.prctl(PR_SET_PDEATHSIG, int(stop_with), 0, 0, 0)
            if os.getppid() != parent:  # it was killed before the line above
                os._exit(1)

    # A session of its own: Ctrl-C reaches this script only, which then stops its children once and in order.
    options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
    child = subprocess.Popen(command, preexec_fn=end_with_parent, **options)
    stack.callback(stop, child, stop_with)
    return child


def stop(child, stop_with):
    try:
        if child.poll() is None:
            child.send_signal(stop_with)
            child.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        say(f"{child.args[0]} did not stop within {STOP_WITHIN} s: killed")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def watch(children, done, limit, what, each_time=lambda: None):
    """Waits until done() is not None, and fails as soon as one of the children has ended."""
    deadline = time.monotonic() + limit
    while (result := done()) is None:
        for name, child in children.items():
            if child.poll() is not None:
                raise Failed(f"{name} ended with code {child.returncode} while waiting for {what}")
        if time.monotonic() > deadline:
            raise Failed(f"waited {limit:.0f} s for {what}")
        each_time()
        time.sleep(0.1)
    return result
