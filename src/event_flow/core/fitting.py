"""What type checkers are told of the functions that become handlers. Nothing imports it when it runs.

A handler of `E` may take whatever a list of `E` can be: `list[E]`, `Sequence[E]`, `Iterable[object]`. And since each call
gets a list of its own, which nobody else holds, it may take `list[B]` for any `B` that includes `E`: a base class, or a union.
The same holds for a `Batch`. A checker would refuse that, `list` and `Batch` being invariant. So the wider list is asked for in
two steps: `B` is what the function says, and `E | B` must be the same as `B`, which is so if `E` is a part of it and only then.

A decorator returns the function with the signature it has, `P`, its parameters' names included. It cannot be a type variable
that stands for the whole function, because the bound of one may not mention `E`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import timedelta
from functools import partialmethod
from typing import Any, Generic, ParamSpec, Protocol, TypedDict, TypeVar, overload

from event_flow.core.batch import Batch
from event_flow.core.event import Event
from event_flow.core.handler_options import OnFailure, Overflow
from event_flow.core.rate import Rate
from event_flow.core.retry import Retry

A = ParamSpec("A")
B = ParamSpec("B")
P = ParamSpec("P")
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)
EventT = TypeVar("EventT", bound=Event[Any])
WiderT = TypeVar("WiderT")
WiderEventT = TypeVar("WiderEventT", bound=Event[Any])

E1 = TypeVar("E1", bound=Event[Any])
E2 = TypeVar("E2", bound=Event[Any])
E3 = TypeVar("E3", bound=Event[Any])
E4 = TypeVar("E4", bound=Event[Any])


class Options(TypedDict, Generic[E1], total=False):
    """The options of a handler of `E1`; their meaning stands in the docstring of `on_event`."""

    max_batch: int | None
    queue_size: int | None
    linger: float | timedelta
    # Of a class Mypy does not see that it has a hash.
    key: Callable[[E1], Hashable | type[Any]] | str | None
    concurrency: int
    overflow: Overflow
    rate: Rate | None
    timeout: float | timedelta | None
    retry: Retry | None
    isolate: bool
    on_failure: Mapping[type[Exception], OnFailure]


class Fits(Protocol[A, B, P, ResultT_co]):
    """A function with the signature `P` that can be called with `A` and with `B`."""

    @overload
    def __call__(self, *args: A.args, **kwargs: A.kwargs) -> ResultT_co: ...
    @overload
    def __call__(self, *args: B.args, **kwargs: B.kwargs) -> ResultT_co: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ResultT_co: ...


class Anything:
    """What a parameter without an annotation takes, and no list is."""


class Unannotated(Protocol[A, ResultT_co]):
    """A function that can be called with `A`, under any names: Mypy ignores those of one without annotations.

    Of such a method Mypy cannot say whether it `Fits`: it finds no `P`.
    """

    @overload
    def __call__(self, *args: A.args, **kwargs: A.kwargs) -> ResultT_co: ...
    @overload
    def __call__(self, one: Any, another: Any) -> ResultT_co: ...


class FunctionDecorator(Protocol[EventT]):
    """Takes a function with one parameter, a list or `Batch` that may hold an `EventT`, and returns it."""

    @overload
    def __call__(
        self,
        function: Fits[[Batch[WiderEventT]], [Batch[EventT | WiderEventT]], P, ResultT],
        /,
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[Batch[EventT]], [Batch[EventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...

    @overload
    def __call__(
        self, function: Fits[[list[WiderT]], [list[EventT | WiderT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[list[EventT]], [list[EventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...


class MethodDecorator(Protocol[EventT]):
    """The same for methods. A static one has no `self`, and that is all a type checker shows of it here.

    The last overload is what Pyright tells about when none fits.
    """

    @overload
    def __call__(self, function: partialmethod[ResultT], /) -> partialmethod[ResultT]: ...
    @overload
    def __call__(self, function: Unannotated[[Any, Anything], ResultT], /) -> Callable[..., ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[Batch[WiderEventT]], [Batch[EventT | WiderEventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[Batch[EventT]], [Batch[EventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[Any, Batch[WiderEventT]], [Any, Batch[EventT | WiderEventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[Any, Batch[EventT]], [Any, Batch[EventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[list[WiderT]], [list[EventT | WiderT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[list[EventT]], [list[EventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[Any, list[WiderT]], [Any, list[EventT | WiderT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
    @overload
    def __call__(
        self, function: Fits[[Any, list[EventT]], [Any, list[EventT]], P, ResultT], /
    ) -> Callable[P, ResultT]: ...
