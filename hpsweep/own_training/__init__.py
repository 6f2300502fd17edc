"""Training by the user's own code: a module that their function builds, or a loop of theirs.

- `code` finds a function by its file and name, and hashes what it is made of.
- `build` makes the parametrized module of a trial.
- `batches` gives what it trains on and is measured on.
- `loop` is hpsweep's training loop for such a module.
- `run` is what a training loop of the user's own is given, and trains by it.
- `command` trains by a program, each trial in a process of its own; `losses` reads what it left.
- `outcome` makes the row and the curve of losses that were reported.
"""
