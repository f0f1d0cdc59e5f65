"""Marker of the benchmarks' tests."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register ``slow``."""
    config.addinivalue_line("markers", "slow: left to make test-all")
