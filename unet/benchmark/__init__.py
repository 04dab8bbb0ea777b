"""What ``scripts/benchmark.py`` measures, and how: in turns, in one process, each round on its own.

``timing`` times calls in turns; ``forms`` says in which dtype and memory layout a network or operator runs. On these
stand ``networks`` (this project's beside its ``contenders``, as a share of the machine's ``peak``), ``loader`` and
``operators`` (each one's time and memory) with ``folded`` (``nearest`` beside its plain form).
"""
