"""The check of a machine with a GPU, in parts: see `benchmarks/cuda_check.py`.

`preflight` looks, `plan` says what is compared with what, `measure` runs it, each turn in a process
of its own, `report` makes the table. `pack` and `unpack` carry to such a machine what it lacks.
"""
