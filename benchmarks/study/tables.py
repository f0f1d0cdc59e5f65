"""Markdown tables of the results of a study, one for each group of models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.heuristics import COOCCURRENCE, parse_heuristic
from benchmarks.study.jobs import Places
from benchmarks.study.statistics import Estimate, estimate, paired_difference
from benchmarks.study.study_file import SLOTS, Study
from benchmarks.study.tuning.results import find_tuned
from benchmarks.study.variants import Variant

Found = Mapping[str, Sequence[dict[str, Any]]]
"""What the result files of each variant hold, by its name."""
USAGE = {
    "coverage": "coverage",
    "gini": "Gini",
    "top_1_percent": "share of the top 1 %",
    "kl_to_uniform": "KL to uniform",
}
"""Columns for the use of a memory, by their names in a result file."""


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def question_tables(study: Study, question: str, variants: Sequence[Variant], found: Found) -> list[str]:
    """The results of a question: a table for each group, or for each line where an axis varies.

    The variant that others are compared with is the first row of every group.
    """
    axis = study.axes.get(question)
    name = study.reference_of(question)
    reference = None if name is None else study.variant(name)
    usage = any("memory" in each["best"] for variant in variants for each in found[variant.name])
    along, less = [axis.replace("_", " ")] if axis else [], [f"ΔAUC to {reference.row}"] if reference else []
    header = [*along, "seeds", "AUC", *less, "GAUC", "log loss", "samples/s", "train s", "peak MiB"]
    header += USAGE.values() if usage else ()

    def row(variant: Variant) -> list[str]:
        own = found[variant.name]
        is_trained = variant.counting is None
        texts = [_number(place_on(variant, axis))] if axis else []
        texts += [str(len(own)) if is_trained else "-", _in_words(metric(own, "auc"))]
        if reference is not None:
            texts.append("" if variant == reference else _in_words(difference(variant, reference, found), "+.4f"))
        texts += [_in_words(metric(own, "gauc")), _in_words(metric(own, "log_loss"))]
        texts += [_mean(own, "samples_per_second"), _mean(own, "train_seconds") if is_trained else "-"]
        texts.append(f"{max(each['peak_memory_mib']['resident'] for each in own):,.0f}")
        return [*texts, *(_usage(own, name) for name in USAGE if usage)]

    if axis is not None:
        return [
            markdown_table(["model", *header], ([each.line, *row(each)] for each in rows))
            for rows in by_line(variants, axis)
        ]
    return _by_group(variants, header, row, reference if reference in variants else None)


def history_tables(variants: Sequence[Variant], found: Found) -> list[str]:
    """Test AUC by the number of the user's events before a sample, a table for each group."""
    return _range_tables(variants, {name: [run["test_by_history"] for run in runs] for name, runs in found.items()})


def item_age_tables(variants: Sequence[Variant], found: Found) -> list[str]:
    """Test AUC by the days since the item's first event of any user, a table for each group."""
    parts = {name: [run.get("test_by_item_age", []) for run in runs] for name, runs in found.items()}
    return _range_tables(variants, parts)


def writing_tables(variants: Sequence[Variant], found: Found) -> list[str]:
    """Test AUC of models that stop writing before the test split, and of the same if they keep writing."""
    written = {name: [run for run in runs if run.get("test_while_writing") is not None] for name, runs in found.items()}
    variants = [each for each in variants if written[each.name]]

    def row(variant: Variant) -> list[str]:
        runs = written[variant.name]
        texts = []
        for name in ("auc", "log_loss"):
            pairs = [(run["test"][name], run["test_while_writing"][name]) for run in runs]
            gains = _in_words(_estimate([after - before for before, after in pairs]))
            texts += [*(_in_words(_estimate(list(each))) for each in zip(*pairs, strict=True)), gains]
        return texts

    header = [f"{name}, {when}" for name in ("AUC", "log loss") for when in ("stops", "keeps writing", "difference")]
    return _by_group(variants, header, row) if variants else []


def _range_tables(variants: Sequence[Variant], parts: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> list[str]:
    """A table for each group: AUC in each range, of the runs of each variant by its name."""
    sizes: dict[tuple[int | None, int | None], str] = {}
    values: dict[tuple[str, int | None], list[float | None]] = {}
    for variant in variants:
        for part in (part for run in parts[variant.name] for part in run):
            sizes[part["from"], part["to"]] = f"{part['rows']:,} ({part['users']:,})"
            values.setdefault((variant.name, part["from"]), []).append(part["auc"])
    ranges = sorted(sizes, key=lambda each: -1 if each[0] is None else each[0])
    if not ranges:
        return []

    def row(variant: Variant) -> list[str]:
        return [_in_words(_estimate(values.get((variant.name, low), []))) for low, _ in ranges]

    first = ["samples (users)", *(sizes[each] for each in ranges)]
    return _by_group(variants, [_range_in_words(*each) for each in ranges], row, first=first)


def _range_in_words(low: int | None, high: int | None) -> str:
    if low is None:
        return "none before"
    return f"{low:,} and more" if high is None else f"{low:,} to {high - 1:,}"


def tuning_table(study: Study, results: Path) -> str:
    """What tuning found: its budget, the validation AUC of a variant's own settings and of the best, and those."""
    variants = [each for each in study.variants if each.is_tuned]
    found = find_tuned(study, variants, Places(results, results))
    axes = list(dict.fromkeys(name for tuned in found.values() for name in tuned.point))
    header = ["validation AUC", "trials", "runs", "seeds", "untuned", "tuned", *axes]
    rows = [
        [
            each.row, f"{tuned.trials}", f"{tuned.runs}", f"{len(tuned.scores)}",
            _in_words(_estimate([*tuned.default.values()])), _in_words(_estimate([*tuned.scores.values()])),
            *(_value(tuned.point[name]) if name in tuned.point else "-" for name in axes),
        ]
        for each in variants
        if (tuned := found.get(each.name)) is not None
    ]  # fmt: skip
    return markdown_table(header, rows) if rows else ""


def by_line(variants: Sequence[Variant], axis: str) -> list[list[Variant]]:
    """Variants along an axis, line by line; a line of one variant is listed with the line before it."""
    lines: dict[str, list[Variant]] = {}
    for each in variants:
        lines.setdefault(each.line, []).append(each)
    tables: list[list[Variant]] = []
    for members in lines.values():
        members.sort(key=lambda each: (place_on(each, axis) is None, place_on(each, axis) or 0.0))
        if len(members) == 1 and tables:
            tables[-1] += members
        else:
            tables.append(members)
    return tables


def place_on(variant: Variant, axis: str) -> float | None:
    """Where ``variant`` is on an axis, which is a setting or ``slots``; None for nowhere."""
    if variant.counting is not None:
        kind, _, size = parse_heuristic(variant.counting)
        if size is None or (kind == COOCCURRENCE) != (axis == SLOTS):
            return None
        return size**2 if kind == COOCCURRENCE else size
    if axis == SLOTS:
        sub_keys = variant.settings.model.memory.sub_keys
        return None if sub_keys is None else sub_keys**2
    return variant.settings.value(axis)


def metric(own: Sequence[Mapping[str, Any]], name: str) -> Estimate | None:
    """A metric on the test split over the runs of a variant; None if it is not defined."""
    return _estimate([each["test"][name] for each in own])


def difference(variant: Variant, reference: Variant, found: Found) -> Estimate | None:
    """How much the test AUC is above that of the reference, paired by seed; None if no seed is common."""
    if variant == reference:
        return None
    ours, theirs = (
        {None if each["counting"] else each["seed"]: each["test"]["auc"] for each in found.get(one.name, ())}
        for one in (variant, reference)
    )
    return paired_difference(ours, theirs)


def _by_group(
    variants: Sequence[Variant],
    header: Sequence[str],
    row: Callable[[Variant], list[str]],
    reference: Variant | None = None,
    first: Sequence[str] | None = None,
) -> list[str]:
    """A table for each group, with its name over the first column and the reference, or ``first``, as its first row."""
    start = [first] if first else [] if reference is None else [[reference.row, *row(reference)]]
    groups: dict[str, list[Variant]] = {}
    for each in variants:
        if each != reference:
            groups.setdefault(each.group, []).append(each)
    return [
        markdown_table([group or "model", *header], [*start, *([each.row, *row(each)] for each in members)])
        for group, members in groups.items()
    ]


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    defined = [value for value in values if value is not None]
    return estimate(defined) if values and len(defined) == len(values) else None


def _usage(own: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [each["best"]["memory"][name] for each in own if "memory" in each["best"]]
    return f"{sum(values) / len(values):.3f}" if values else ""


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _in_words(value: Estimate | None, form: str = ".4f") -> str:
    if value is None:
        return "-"
    return f"{value.mean:{form}}" + ("" if value.half is None else f" ± {value.half:.4f}")


def _mean(own: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [each[name] for each in own if each[name] is not None]
    return f"{sum(values) / len(values):,.0f}" if values else "-"
