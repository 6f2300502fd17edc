"""From base hyperparameters to per-tensor numbers; no training, no I/O."""
