"""The kernel: the way of an event, from `pub_event` to the handler.

In the order it happens: `publishing` (what users call, the fast path) → `bus` (admission and waiting) → `routing` (which
lanes) → `lane` (the queue of batches) → `delivery` (the handler call) → `failure` (what became of it). Beside it,
`scheduling` and `background` run ticks and tasks, `supervision` starts and ends everything in order, `lifecycle` is how
one runs it, and `application` is what users subclass. Imports go down only, in the order of this list from the bottom.
"""
