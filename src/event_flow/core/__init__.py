"""The kernel: the way of an event, from `pub_event` to the handler.

In the order it happens: `publishing` (what users call, the fast path) → `bus` (admission; from threads through `inbox`) →
`routing` (which lanes) → `room` (who waits for a place in them) → `lane` (the queue of batches) → `delivery` (the handler
call: `invoke`, in a thread of `threads` if it is sync) → `outcome` and `failure` (what became of it). `origin` tells which
user code publishes, `activity` whether anything is at work.

Before that, `decorators`, `handler_options`, `parameter`, `annotation` and `declaration` say what a class declares, `fitting`
tells type checkers which functions do, and `membership` what may be added. Beside it, `scheduling` and `background` run
ticks and tasks, each application in its `branch`. `assembly` builds all that for one `run`, and `accounting` reads its
numbers; `supervision` starts and ends it in order, with `hooks`, in waits that have `endurance` and hear a `bell`;
`lifecycle` is how one runs it, `observing` how one waits for it, `signals` how one ends it, `registering` how plain
functions get into it, and `application` what users subclass. Only `backend` knows which event loop there is. `batch`, `event`,
`exception`, `options`, `rate`, `report`, `retry`, `state` and `wording` are the words all of them use, and `function` tells
sync from async. Imports go down only, and never in a circle.
"""
