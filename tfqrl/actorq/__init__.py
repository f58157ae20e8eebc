"""Distributed training with quantised actors (ActorQ: Krishnan et al. 2022, arXiv 1910.01055, section 4).

A learner in float32, on TensorFlow, and many actors, whose policies run in 8 bits in the `edge` runtime. What an actor
imports has no TensorFlow in it. Read `actor` for what an actor does, `learner` for the other side, `messages` for what
goes between them, and `asynchronous` for the processes, which Ray starts and restarts. Algorithms that learn from their
present policy alone have `rollouts` and `synchronous` instead.
"""
