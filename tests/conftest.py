"""What every test gets: its backends, a look at the log, and checks that no drain and no thread outlasts its work."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from backends import EXTRAS, REAL_TIME, VIRTUAL_TIME, complaint, is_installed, names_one_of
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from loguru import logger

from event_flow import AppEngine
from event_flow.core.supervision import Supervisor
from event_flow.testing.clock import virtual_clock

if TYPE_CHECKING:
    from loguru import Message

# Long enough for a thread that was told to end and is on its way out, on a machine that is busy.
THREAD_END = 5.0

# Seconds that a drain has if nothing is said. A test that wants one to run out gives it a time of its own.
GRACE_PERIOD: float = inspect.signature(AppEngine).parameters["grace_period"].default

# Two cores and three backends: a deadline for an example would measure the machine.
hypothesis_settings.register_profile("default", deadline=None, max_examples=200)
hypothesis_settings.register_profile("smoke", deadline=None, max_examples=10)
# For hours: examples that are large or slow are what it is for.
hypothesis_settings.register_profile(
    "soak", deadline=None, max_examples=10_000, suppress_health_check=list(HealthCheck), print_blob=True
)
hypothesis_settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="leave out the tests that need this backend, which must not be installed",
    )


def pytest_configure(config: pytest.Config) -> None:
    wrong = complaint(config.getoption("without_backend"), list(filter(is_installed, EXTRAS)))
    if wrong:
        raise pytest.UsageError(wrong)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a backend that the run does without: it names it in a parameter, or in the mark `needs`."""
    without = config.getoption("without_backend")
    kept, left = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        names = [*getattr(getattr(item, "callspec", None), "params", {}).values()]
        names += [name for mark in item.iter_markers("needs") for name in mark.args]
        (left if names_one_of(without, names) else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)
    if hypothesis_settings.get_current_profile_name() == "soak":
        # It takes as long as it takes: what a test says of its own time does not hold there.
        for item in items:
            item.add_marker(pytest.mark.timeout(0), append=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses a backend, so every async one, on all that can keep the time it asks for."""
    if "anyio_backend" in metafunc.fixturenames:
        virtual = metafunc.definition.get_closest_marker("virtual_clock") is not None
        metafunc.parametrize("anyio_backend", VIRTUAL_TIME if virtual else REAL_TIME, indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Name and options of the backend, as anyio's plugin, `anyio.run` and `AppEngine.start` take them."""
    backend: str = request.param
    if request.node.get_closest_marker("virtual_clock") is not None:
        return backend, virtual_clock(backend)
    if backend == "uvloop":
        return "asyncio", {"use_uvloop": True}
    return backend, {}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One line of the log: the level's name, the message without any format, what was bound, what was raised."""

    level: str
    message: str
    extra: dict[str, Any]
    exception: BaseException | None


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[LogRecord]]:
    """What was logged since the test began, from level TRACE on; nothing goes to stderr."""
    records: list[LogRecord] = []

    def keep(message: Message) -> None:
        record = message.record
        raised = record["exception"]
        records.append(
            LogRecord(
                level=record["level"].name,
                message=record["message"],
                extra=record["extra"],
                exception=raised.value if raised is not None else None,
            )
        )

    logger.remove()
    # Without diagnose: it would call repr() of everything in sight, which is slow and can fail by itself.
    logger.add(keep, level="TRACE", format="{message}", backtrace=False, diagnose=False)
    yield records
    logger.remove()


@pytest.fixture(autouse=True)
def no_drain_outlasts_its_work() -> Iterator[None]:
    """Fail a test in which a drain lasts as long as it may: nobody told it that all is quiet.

    Everything else would still be right, only later.
    """
    lasted: list[float] = []
    drain = Supervisor._drain

    async def measure(supervisor: Supervisor) -> None:
        began = anyio.current_time()
        await drain(supervisor)
        if supervisor.run.options.grace_period == GRACE_PERIOD:
            lasted.append(anyio.current_time() - began)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervisor, "_drain", measure)
        yield
    if max(lasted, default=0) > 0.99 * GRACE_PERIOD:
        pytest.fail(f"a drain lasted {max(lasted):.1f} s, all of its grace period", pytrace=False)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread which would outlive it: the engine's own, and any that holds up the exit."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and _must_end(thread)]
    for thread in left:
        thread.join(THREAD_END)
    left = [thread for thread in left if thread.is_alive()]
    if left:
        pytest.fail(f"threads left behind: {', '.join(thread.name for thread in left)}", pytrace=False)


def _must_end(thread: threading.Thread) -> bool:
    return not thread.daemon or thread.name.startswith("event-flow")
