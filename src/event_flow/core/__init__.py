"""The kernel: the way of an event, from `pub_event` to the handler.

In the order it happens: `publishing` (what users call) → `bus` (admission, waiting) → `routing` (which lanes) → `lane`
(the queue of batches) → `delivery` (the handler call) → `failure` (what became of it). Beside it `supervision` starts
and ends everything in order, and `application` is what users subclass.
"""
