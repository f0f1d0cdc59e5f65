"""Metrics against scikit-learn in a plain loop, and their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from lmn_model.training.evaluation.metrics import MetricError, auc, click_metrics, grouped_auc, log_loss, probabilities


def _rows(rows: int, users: int, levels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows).astype(np.float32)
    logits = rng.integers(-levels, levels + 1, rows).astype(np.float32) / 3  # few levels, so that scores tie
    return labels, logits, rng.integers(0, users, rows)


def _gauc_by_loop(labels: np.ndarray, logits: np.ndarray, groups: np.ndarray) -> float | None:
    total = weight = 0.0
    for user in np.unique(groups):
        own = groups == user
        if 0 < labels[own].sum() < own.sum():
            total += own.sum() * sk.roc_auc_score(labels[own], logits[own])
            weight += own.sum()
    return total / weight if weight else None


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(1, 12), st.integers(0, 5), st.integers(0, 10_000))
def test_grouped_auc_equals_a_loop_over_users(rows: int, users: int, levels: int, seed: int) -> None:
    labels, logits, groups = _rows(rows, users, levels, seed)
    expected = _gauc_by_loop(labels, logits, groups)
    found = grouped_auc(labels, logits, groups * 1_000_003 - 7)  # ids need not be dense, nor positive
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-12)


def test_grouped_auc_weighs_users_by_their_rows_and_leaves_out_one_class_users() -> None:
    labels = np.array([1, 0, 0, 1, 1, 1, 0], np.float32)
    logits = np.array([2, 1, 0, 5, 5, 0, 1], np.float32)
    groups = np.array([0, 0, 0, 1, 1, 2, 2])
    assert grouped_auc(labels, logits, groups) == pytest.approx((3 * 1.0 + 2 * 0.0) / 5)


def test_grouped_auc_is_none_where_no_user_has_both_classes() -> None:
    labels = np.array([1, 1, 0], np.float32)
    assert grouped_auc(labels, np.arange(3.0), np.array([0, 0, 1])) is None
    assert grouped_auc(np.zeros(0), np.zeros(0), np.zeros(0, np.int64)) is None


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 200), st.integers(0, 9), st.integers(0, 10_000))
def test_auc_equals_sklearn(rows: int, levels: int, seed: int) -> None:
    labels, logits, _ = _rows(rows, 1, levels, seed)
    labels[:2] = 0, 1
    assert auc(labels, logits) == pytest.approx(sk.roc_auc_score(labels, logits), abs=1e-12)


def test_auc_counts_ties_one_half() -> None:
    assert auc(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(0.75)


def test_log_loss_equals_sklearn_and_does_not_overflow() -> None:
    labels, logits, _ = _rows(500, 3, 9, 1)
    assert log_loss(labels, logits) == pytest.approx(sk.log_loss(labels, probabilities(logits)), rel=1e-9)
    assert log_loss(np.array([0.0, 1.0]), np.array([2000.0, 2000.0])) == pytest.approx(1000.0)


def test_probabilities_are_exact_at_both_ends() -> None:
    found = probabilities(np.array([-1000.0, 0.0, 1000.0], np.float32))
    np.testing.assert_array_equal(found, [0.0, 0.5, 1.0])


def test_click_metrics_holds_the_three() -> None:
    labels, logits, groups = _rows(200, 5, 4, 3)
    found = click_metrics(labels, logits, groups)
    assert found == {
        "auc": auc(labels, logits),
        "gauc": grouped_auc(labels, logits, groups),
        "log_loss": log_loss(labels, logits),
    }


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_auc_of_one_class_is_an_error(label: float) -> None:
    with pytest.raises(MetricError, match=rf"auc: needs both classes, got {4 * label:.0f} positives in 4 rows"):
        auc(np.full(4, label), np.arange(4.0))


def test_errors_name_the_metric_and_the_value() -> None:
    labels = np.array([0.0, 1.0])
    with pytest.raises(MetricError, match=r"log_loss: logits must be finite, got 1 of 2"):
        log_loss(labels, np.array([0.0, np.nan]))
    with pytest.raises(MetricError, match=r"auc: labels and logits must be \[R\] alike, got \(2,\) and \(3,\)"):
        auc(labels, np.zeros(3))
    with pytest.raises(MetricError, match=r"grouped_auc: groups must have shape \(2,\), got \(3,\)"):
        grouped_auc(labels, np.zeros(2), np.zeros(3, np.int64))
    with pytest.raises(MetricError, match="log_loss: needs at least one row"):
        log_loss(np.zeros(0), np.zeros(0))
