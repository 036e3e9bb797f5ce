"""Programs that a test starts and asks to end: by a signal, on Windows by Ctrl+Break, the only one that goes to one process."""

from __future__ import annotations

import signal
import subprocess
import sys

# The signals a test can send, the one to take first. As the process sees them: sent is another thing on Windows.
if sys.platform == "win32":
    SENT: list[signal.Signals] = [signal.SIGBREAK]
    # Without a group of its own the test would get it too.
    CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    SENT = [signal.SIGINT, signal.SIGTERM]
    CREATION_FLAGS = 0

# A shell without job control has what it runs in the background ignore SIGINT, and the programs of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def send(process: subprocess.Popen[str], number: int) -> None:
    """Send it one of `SENT`. On Windows it must have been started with the `CREATION_FLAGS`."""
    if sys.platform == "win32":
        assert number == signal.SIGBREAK
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.send_signal(number)
