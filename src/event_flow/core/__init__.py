"""The kernel: the way of an event, from `pub_event` to the handler.

In the order it happens: `publishing` (what users call, the fast path) → `bus` (admission, after `filtering`; from threads through
`inbox`) → `routing` (which lanes) → `room` (who waits for a place in them; `overflow` tells of those that were full) → `lane`
(the queue of batches) → `delivery` (the handler call: `invoke`, in a thread of `threads` if it is sync) → `outcome` and `failure`
(what became of it). `origin` tells which user code publishes, `activity` whether anything is at work.

A handler with options that ask for more has other rooms on the same way: its lane is a `gate` (a batch waits for company,
for its rate, for another attempt), or `keyed` (a queue for each key), `trying` makes each `attempt` through `middleware`, and
`rules` say what follows a failure. `housing` chooses them. The values that options take are `rate` and `retry`.

Before that, `decorators`, `handler_options`, `parameter`, `annotation` and `declaration` say what a class declares; a handler
may take a `batch`. `fitting` tells type checkers which functions fit, `function` what can be told of one, `membership` what may
be added, and `registering` takes plain functions. Beside it, `scheduling` and `background` run ticks and tasks, each
application in its `branch`. `assembly` builds all that for one `run`, `accounting` reads its numbers, and `control` pauses a
handler; `supervision` starts and ends it in order, with `hooks`, in waits that have `endurance` and hear a `bell`; `lifecycle`
is how one runs it, `observing` how one waits for it, `signals` how one ends it, and `application` what users subclass. Only
`backend` knows which event loop there is. `event`, `exception`, `log_limit`, `options`, `report`, `state` and `wording` are the
words all of them use. Imports go down only, and never in a circle.
"""
