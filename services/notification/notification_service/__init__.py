"""The notification service: topics, push at any time, and a place in the log that is never lost.

From the inside out, imports going one way only: `topics`, `codec` (pure), `tail`, `lane`,
`subscription` (who gets what, no I/O), `hub` (one follower of the log), `outbox` (one writer a
stream), `publishing`, `starting`, `cursors`, `sessions` (the state log), `connection` and `servicer`
(gRPC), `service`, `__main__`.
"""
