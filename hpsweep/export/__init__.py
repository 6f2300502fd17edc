"""From a card to other trainers: parameter groups, a Hugging Face script, a nanoGPT config."""

from __future__ import annotations

TRAINERS = {
    "torch": "parameter groups of a module of yours",
    "hf": "a script for transformers.Trainer",
    "nanogpt": "a config of nanoGPT-mup's supar branch",
}
"""The trainers by the name that --to takes, and what each gets. The code is to_NAME.py: file_text and file_data."""
