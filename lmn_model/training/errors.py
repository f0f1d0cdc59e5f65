"""How a training ends before its last step."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what is kept."""


class TrainingInterrupted(Exception):
    """A signal stopped the training; the state is saved, and the message says how to continue."""
