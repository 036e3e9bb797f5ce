"""What `import event_flow` costs a program that has anyio and loguru already, in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys

ALREADY = "import anyio, loguru"
# anyio reads most of its own files only when a name of theirs is asked for, which event_flow does at its import.
ALREADY_WITH_ANYIO_S_PARTS = f"{ALREADY}, anyio.abc, anyio.lowlevel\nanyio.create_task_group"


def seconds_to_import(already: str) -> float:
    """After the statements in `already`, by the clock of the process: others that compete for the processor hardly count."""
    code = (
        f"{already}\nfrom time import process_time\nbegan = process_time()\nimport event_flow\n"
        "print(process_time() - began)"
    )
    # A program compiles the package once in its life; without a cache each run would.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)
