"""Where the tests find what lies beside them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The root of the project."""
