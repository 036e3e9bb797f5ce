"""How everybody in the traffic publishes and redelivers: whatever becomes of it is written into the `Ledger` of the run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from ledger import Ledger
from plans import How
from records import Author, Fate, Publication, Redelivery, Thing
from stepped_loop import SteppedLoop
from terms import Overflow

from event_flow import AppEngine, BacklogExceeded, EngineClosed, ExceptionEvent, LaneFull

REFUSALS = (EngineClosed, BacklogExceeded, LaneFull, anyio.WouldBlock)


class Publishing:
    """What refuses an event is written down, and out of a handler raised."""

    loop: SteppedLoop
    engine: AppEngine
    ledger: Ledger

    def __init__(self) -> None:
        self._serials = itertools.count()

    # -- publishing ------------------------------------------------------------------------------------------------

    async def publish(self, how: How, classes: Sequence[type[Thing]], author: Author) -> None:
        """Publish one event of each class."""
        if how is How.TOGETHER:
            await self.give_turns()
            events = self._write(classes, author)
            with suppress(*_expected(author)), self._fate_of(events, author):
                await self.engine.pub_events(events)
        else:
            await self._each(how, self._publish_one, classes, author)

    async def _each(
        self,
        how: How,
        do: Callable[[How, Any, Author], Coroutine[Any, Any, None]],
        objects: Sequence[Any],
        author: Author,
    ) -> None:
        if how is How.CHILDREN:
            async with anyio.create_task_group() as group:
                for one in objects:
                    child = replace(author, name=f"{author.name}.{next(self._serials)}")
                    group.start_soon(do, how, one, child)
        else:
            for one in objects:
                with anyio.move_on_after(1 if how is How.GIVEN_UP else math.inf):
                    await do(how, one, author)

    async def _publish_one(self, how: How, event_class: type[Thing], author: Author) -> None:
        await self.give_turns()
        events = self._write([event_class], author)
        with suppress(*_expected(author)), self._fate_of(events, author, is_at_once=how is How.NOWAIT):
            if how is How.NOWAIT:
                self.engine.pub_event_nowait(events[0])
            else:
                await self.engine.pub_event(events[0])

    def publish_in_thread(self, how: How, classes: Sequence[type[Thing]], author: Author) -> None:
        if how is How.TOGETHER:
            events = self._write(classes, author)
            with suppress(*_expected(author)), self._fate_of(events, author):
                self.engine.pub_events_from_thread(events)
        else:
            for event_class in classes:
                events = self._write([event_class], author)
                with suppress(*_expected(author)), self._fate_of(events, author):
                    self.engine.pub_event_from_thread(events[0])

    def _write(self, classes: Sequence[type[Thing]], author: Author) -> list[Thing]:
        events = []
        for event_class in classes:
            publication = Publication(author, next(self._serials), self.engine.state, event_class)
            publication.is_one_of_many = len(classes) > 1
            events.append(event_class(publication))
            self.ledger.publications[events[-1]] = publication
        return events

    @contextmanager
    def _fate_of(
        self, events: Sequence[Thing], author: Author, *, is_at_once: bool = False
    ) -> Iterator[None]:
        ledger = self.ledger
        try:
            yield
        except BaseException as exc:
            ledger.judge_refusal(exc, events, author, self.engine.state)
            if isinstance(exc, anyio.WouldBlock):
                self._judge_lack_of_room(ledger, events[0], "wait")
            if isinstance(exc, LaneFull):
                self._judge_full(ledger, events, exc)
                if is_at_once:
                    self._judge_lack_of_room(ledger, events[0], "error")
            for event in events:
                publication = event.data
                if publication.fate is Fate.PENDING:
                    publication.fate = Fate.UNSURE if publication.is_one_of_many else Fate.REFUSED
                elif publication.fate is Fate.MADE and not publication.is_one_of_many:
                    ledger.broken.append((5, f"{event} was delivered, and its publish raised {exc!r}"))
            raise
        for event in events:
            ledger.judge_acceptance(event.data, self.loop.time())
        ledger.look(self.engine)

    def _judge_full(self, ledger: Ledger, events: Sequence[Thing], exc: LaneFull) -> None:
        """The one that is full may have room by now, if the publish had to wait for another one first."""
        docket = ledger.dockets[exc.handler.removeprefix("engine.")]
        wanted = ledger.wants[docket.name]
        is_right = docket.terms.overflow == "error" and exc.limit == docket.queue_size
        if not (is_right and any(issubclass(event.data.routed, wanted) for event in events)):
            ledger.broken.append((2, f"{events} met {exc!r}"))

    def _judge_lack_of_room(self, ledger: Ledger, event: Thing, overflow: Overflow) -> None:
        numbers = self.engine.statistics().handlers
        full = any(
            numbers[f"engine.{name}"].queued >= docket.queue_size
            for name, docket in ledger.dockets.items()
            if issubclass(event.data.routed, ledger.wants[name]) and docket.terms.overflow == overflow
        )
        # Who waits longer comes first.
        others = len(ledger.pending) > 1
        failing = any(call.dead for call in ledger.calls)
        if not (full or others or failing):
            ledger.broken.append((2, f"there is room for {event}, and it was refused"))

    # -- redelivering ----------------------------------------------------------------------------------------------

    async def redeliver(self, how: How, failures: Sequence[ExceptionEvent], author: Author) -> None:
        """Have what failed handed to the handlers that failed, one after the other, unless that was done often enough."""
        await self._each(how, self._redeliver_one, failures, author)

    async def _redeliver_one(self, how: How, failure: ExceptionEvent, author: Author) -> None:
        await self.give_turns()
        ledger = self.ledger
        if failure not in ledger.letters:
            with suppress(EngineClosed):
                await failure.redeliver()
                ledger.broken.append((7, f"{failure} belongs to a run before, and was redelivered"))
            return
        redelivery = ledger.ask_again(failure, author, self.engine.state)
        if redelivery is not None:
            with suppress(*_expected(author)), self._fate_of_redelivery(ledger, redelivery):
                await failure.redeliver()

    @contextmanager
    def _fate_of_redelivery(self, ledger: Ledger, redelivery: Redelivery) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            ledger.judge_refusal(exc, redelivery, redelivery.author, self.engine.state)
            if not redelivery.is_under_way:
                ledger.broken.append((5, f"{redelivery} was made, and raised {exc!r}"))
            redelivery.fate = Fate.UNSURE if len(redelivery.events) > 1 else Fate.REFUSED
            raise
        ledger.judge_acceptance(redelivery, self.loop.time())
        ledger.look(self.engine)

    async def give_turns(self) -> None:
        """Let others go first, or not."""
        for _ in range(self.loop.random.randrange(3)):
            await checkpoint()


def _expected(author: Author) -> tuple[type[Exception], ...]:
    return REFUSALS if author.handler is None else (anyio.WouldBlock,)
