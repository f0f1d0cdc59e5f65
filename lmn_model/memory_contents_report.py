"""The command ``lmn contents``: what the memory of a run has kept, as a piece of Markdown, pictures and JSON."""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter, StrMethodFormatter
from torch.nn.functional import adaptive_avg_pool2d

from lmn_model.environment import describe_environment
from lmn_model.evaluation import choose_device
from lmn_model.files import replacing, write_json
from lmn_model.memory_contents import (
    COUNT_EDGES,
    TOP,
    Contents,
    choose_categories,
    describe_categories,
    describe_profiles,
    describe_recall,
    describe_usage,
    read_contents,
    threshold_of,
)
from lmn_model.plots import COLOURS
from lmn_model.run_folder import RunFolder
from lmn_model.setting_types import SettingsError

logger = logging.getLogger("lmn")

FORMAT = 1
PAGE, NUMBERS = "contents.md", "contents.json"
PICTURES = ("usage.png", "categories.png", "recall.png", "profiles.png")
MOST_BLOCKS = 256
"""Blocks of cells on each axis of the map."""
MOST_NEIGHBOURS = 6
"""Categories that a table names in one cell."""
GREY = "#8C8C8C"


def add_contents_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lmn contents``."""
    parser.add_argument("run_folder", metavar="RUN", help="folder of a finished run with a factored query")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the page, its pictures and numbers")
    parser.add_argument("--data", metavar="PATH", help="where the run's data are, if they were moved")
    parser.add_argument("--feature", metavar="NAME", help="item feature; the last named like a category if not given")
    parser.add_argument(
        "--category", metavar="NAME,NAME", action="append", help="values to look at; the largest if not given"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="VALUE",
        help="projection from which the memory says yes; if not given what 5 %% of the pairs without event exceed",
    )  # fmt: skip
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N; the run's own if not given")


def run_contents(arguments: argparse.Namespace) -> None:
    """Look into the memory, write the page and print a few numbers as JSON.

    Raises:
        SettingsError: the folder cannot be written, or as in :func:`lmn_model.memory_contents.read_contents`, whose
            other errors it raises too.
    """
    found = write_contents(
        arguments.run_folder,
        arguments.out,
        feature=arguments.feature,
        categories=arguments.category,
        threshold=arguments.threshold,
        path=arguments.data,
        device=arguments.device,
    )
    logger.info("wrote %s and its pictures", Path(arguments.out) / PAGE)
    recall, profiles = found["recall"], found["profiles"]
    print(
        json.dumps(
            {
                "out": str(arguments.out),
                "feature": found["feature"],
                "in_use": found["usage"]["in_use"],
                **recall["own"],
                "overlap": profiles["overlap"],
                "percentile_of_nearest": profiles["nearest"]["percentile"],
            }
        )
    )


def write_contents(
    run: Path | str,
    out: Path | str,
    *,
    feature: str | None = None,
    categories: Sequence[str] | None = None,
    threshold: float | None = None,
    path: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Write ``contents.md``, ``contents.json`` and four pictures into ``out`` and return what the JSON holds.

    Args:
        run: folder of a finished run with a factored query.
        out: folder, made if it is not there; files of these names are replaced.
        feature: item feature, see :func:`lmn_model.memory_contents.read_contents`.
        categories: its values to look at, see :func:`lmn_model.memory_contents.choose_categories`.
        threshold: projection above which the memory says yes; None for ``threshold_of``.
        path: where the data are, if they were moved.
        device: as the setting; None takes the run's own.

    Raises:
        SettingsError: ``out`` cannot be written, or as in the functions above.
        RunFolderError, DataError, CheckpointError: as in :func:`lmn_model.memory_contents.read_contents`.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise SettingsError(f"--threshold must be a finite number, got {threshold}")
    settings = RunFolder(run).load_settings()
    target = Path(out)
    _prove_writable(target)
    contents = read_contents(run, feature, path=path, device=device)
    chosen = choose_categories(contents, categories)
    limit = threshold_of(contents) if threshold is None else threshold
    profiles = describe_profiles(contents)
    percentiles = profiles.pop("percentiles")
    found: dict[str, Any] = {
        "format": FORMAT,
        "settings": settings.to_dict(),
        "environment": describe_environment(choose_device(device or settings.training.device)),
        "feature": contents.feature,
        "user": contents.user,
        "users": len(contents.users),
        "users_in_all": contents.users_in_all,
        "categories": len(contents.categories),
        "events": int(contents.counts.sum(dtype=np.int64)),
        "events_shown": contents.shown,
        "usage": describe_usage(contents),
        "chosen": describe_categories(contents, chosen, limit),
        "recall": describe_recall(contents, limit),
        "profiles": profiles,
    }
    words = Words(contents)
    draw_usage(contents, found["usage"], words, target / PICTURES[0])
    draw_categories(contents, chosen, limit, words, target / PICTURES[1])
    draw_recall(found["recall"], words, target / PICTURES[2])
    draw_profiles(profiles, percentiles, words, target / PICTURES[3])
    write_json(target / NUMBERS, found)
    with replacing(target / PAGE) as temporary:
        temporary.write_text(page(found, words), encoding="utf-8")
    return found


class Words:
    """How the page speaks of users, categories and events of a data set.

    Example:
        >>> Words.plural("product category")
        'product categories'
    """

    def __init__(self, contents: Contents) -> None:
        self.user = _spoken(contents.user.removesuffix("_id"))
        self.users = self.plural(self.user)
        feature = _spoken(contents.feature.removesuffix("_id"))
        self.category = "category" if "category" in feature else feature
        self.categories = self.plural(self.category)
        self.bought = "bought" if contents.dataset == "complete-journey" else "chose"
        self.chosen = "bought" if contents.dataset == "complete-journey" else "chosen"
        self.named = contents.named

    @staticmethod
    def plural(word: str) -> str:
        """The plural of a noun, as English mostly makes it."""
        return word[:-1] + "ies" if word.endswith("y") else word + "s"

    def value(self, name: str) -> str:
        """A category as a reader wants it: not shouted, and with its kind where it is a number."""
        if not self.named:
            return f"{self.category} {name}"
        return name.lower() if name.isupper() else name

    def values(self, names: Sequence[str], most: int | None = None) -> str:
        """Several, in Markdown; only the number of those after the ``most``-th."""
        shown = names if most is None else names[:most]
        more = [f"and {len(names) - len(shown)} more"] if len(shown) < len(names) else []
        return ", ".join([*(_escaped(self.value(name)) for name in shown), *more]) or "-"


def page(found: dict[str, Any], words: Words) -> str:
    """The page as Markdown, from what :func:`write_contents` returns."""
    users, categories, user, category = words.users, words.categories, words.user, words.category
    usage, recall, profiles = found["usage"], found["recall"], found["profiles"]
    N = found["settings"]["model"]["memory"]["sub_keys"]
    nearest, own, other = profiles["nearest"], recall["own"], recall["other"]
    length = usage["length"]
    lines = [
        f"The memory as it is when the test part begins: {_drawn(found)} {users}, {found['categories']:,} "
        f"{categories} and {found['events']:,} events before that moment, of which the memory was shown "
        f"{_percent(found['events_shown'] / found['events'])}. Asked about a pair ({user}, {category}) it answers with "
        "a number, the *projection*: 0 if it knows nothing of the pair, towards 1 the more often the pair was "
        "written. Controls judge the same answers by another "
        f"{user}'s truth, drawn at random.",
        f"**How full it is.** {_percent(usage['in_use'])} of {usage['cells']:,} cells (kind of item, kind of "
        f"{user}) hold something; every item feature writes here, each for itself. "
        f"{usage['sub_keys_in_use'][0]:,} of {N:,} kinds of item and "
        f"{usage['sub_keys_in_use'][1]:,} of {N:,} kinds of {user} are in use."
        + (
            f" The fullest hundredth of all cells holds {_percent(usage['share_of_fullest_hundredth'])} of all that is "
            f"written. In the middle of the cells in use the length is {length['0.5']:.3f}, in the fullest "
            f"{length['1']:.3f}; a pair kept whole has length 1."
            if length
            else ""
        ),
        f"![How full the cells are]({PICTURES[0]})",
        f"**Some {categories}.** Each has one row of cells, which it shares with what happens to lie there too. "
        f"*Recalled* are the {users} for whom the projection is above {recall['threshold']:.3f}; *rightly* are those "
        f"of them who {words.bought} it.",
        _markdown(
            [
                category,
                "sub-key",
                "shares it with",
                "other ids there",
                "cells in use",
                f"{users} who {words.bought} it",
                "recalled",
                "rightly",
                "in cells",
            ],
            (
                [
                    _escaped(words.value(each["name"])),
                    str(each["sub_key"]),
                    words.values(each["shares_with"], MOST_NEIGHBOURS),
                    ", ".join(
                        _counted(count, _spoken(name.removesuffix("_id")))
                        for name, count in each["members_of_sub_key"].items()
                        if name != found["feature"]
                    )
                    or "-",
                    f"{each['cells_in_use']:,}",
                    f"{each['users']:,}",
                    f"{each['recalled']:,}",
                    f"{each['rightly']:,}",
                    f"{each['cells_recalled']:,}",
                ]
                for each in found["chosen"]
            ),
        ),
        f"![What the memory says of some {categories}]({PICTURES[1]})",
        f"**Recall against truth.** Over all {recall['pairs']:,} pairs, of which {recall['with_event']:,} have an "
        f"event. AUC: how often a pair that was {words.chosen} gets a larger projection than one that was not. "
        "Spearman: how well projections rank pairs by their number of events.",
        _markdown(
            ["", "AUC", f"AUC within a {user}", "Spearman"],
            [
                [name, *(_number(of[key]) for key in ("auc", "auc_within_user", "spearman"))]
                for name, of in (("the memory", own), (f"control: another {user}'s", other))
            ],
        ),
        f"![Projection by the true number of events]({PICTURES[2]})",
        _profiles_in_words(profiles, words),
        f"![Profiles and nearest {users}]({PICTURES[3]})",
        f"The nearest {user} by memory is more alike, by true counts, than {_percent(nearest['percentile'])} of all "
        f"{users} (50 % would be chance), and among the most alike hundredth for "
        f"{_percent(nearest['first_in_hundred'])} of {users} (chance: 1 %). Mean cosine of true counts with the "
        f"nearest by memory {nearest['cosine']:.3f}, with a random {user} {nearest['cosine_random']:.3f}, with the "
        f"truly nearest {nearest['cosine_best']:.3f}. {_percent(nearest['same_sub_key'])} of the nearest share their "
        f"sub-key with the {user} ({_percent(nearest['same_sub_key_by_chance'], 2)} by chance): {users} in the same "
        "cells read a little of each other."
        + (
            f" With those left out, the nearest is more alike than {_percent(nearest['percentile_elsewhere'])}."
            if nearest["percentile_elsewhere"] is not None
            else ""
        ),
        *(text for each in profiles["examples"] for text in _example(each, words)),
    ]
    return "\n\n".join(lines) + "\n"


def _profiles_in_words(profiles: dict[str, Any], words: Words) -> str:
    start = (
        f"**Nearest {words.users}.** What the memory says of all {words.categories} is the profile of a {words.user}."
    )
    if profiles["overlap"] is None:
        return f"{start} No {words.user} has {TOP} {words.categories}, so that there is no top {TOP} to compare."
    return (
        f"{start} Of the {TOP} {words.categories} that a {words.user} {words.bought} most, the {TOP} largest "
        f"projections name {TOP * profiles['overlap']:.2f}, those of another {words.user} "
        f"{TOP * profiles['overlap_other']:.2f} ({profiles['users']:,} {words.users} with {TOP} {words.categories} or "
        "more)."
    )


def _example(each: dict[str, Any], words: Words) -> list[str]:
    def top(one: dict[str, Any]) -> str:
        return ", ".join(
            f"{_escaped(words.value(name))} ({count:,})"
            for name, count in zip(one["true_top"], one["true_counts"], strict=True)
        )

    def rest(one: dict[str, Any]) -> list[str]:
        recalled = words.values(one["recalled_top"])
        return [f"{one['events']:,}", top(one), recalled, f"{one['agree']} of {len(one['true_top'])}"]

    header = [words.user, "cosine in the memory", "cosine of true counts", "same cells", "events"]
    header += [f"truly the top {TOP} (times)", f"recalled as the top {TOP}", "agree"]
    rows = [[f"**{_escaped(each['name'])}**", "", "", "", *rest(each)]]
    for one in each["nearest"]:
        cosines = [f"{one[name]:.3f}" for name in ("cosine_memory", "cosine_truth")]
        rows.append([_escaped(one["name"]), *cosines, "yes" if one["same_sub_key"] else "no", *rest(one)])
    return [
        f"{words.user.capitalize()} **{_escaped(each['name'])}** and the nearest by memory:",
        _markdown(header, rows),
    ]


def draw_usage(contents: Contents, usage: dict[str, Any], words: Words, path: Path) -> None:
    """The lengths of all cells as a map, sub-keys from the fullest, and how they are distributed.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (grid, bars) = _panels(11.5, 4.8, "How full the cells are", "Cells in use by length")
    lengths = contents.lengths
    N = len(lengths)
    first, second = (np.argsort(-lengths.sum(axis=axis), kind="stable") for axis in (1, 0))
    ordered = torch.from_numpy(lengths[first][:, second])[None].double()
    blocks = adaptive_avg_pool2d(ordered, min(N, MOST_BLOCKS))[0].numpy()
    used = lengths[lengths > 0]
    highest = float(blocks.max()) or 1.0
    lowest = max(float(np.quantile(blocks[blocks > 0], 0.02)) if blocks.any() else highest / 10, highest / 1e4)
    image = grid.imshow(
        np.ma.masked_equal(blocks, 0.0), norm=LogNorm(min(lowest, highest / 2), highest), cmap="viridis",
        interpolation="nearest", extent=(0, N, N, 0),
    )  # fmt: skip
    grid.set_facecolor("#EDEDED")
    grid.grid(False)
    side = -(-N // MOST_BLOCKS)
    what = f"mean of {side} x {side} cells, empty ones 0" if side > 1 else "length"
    bar = figure.colorbar(image, ax=grid, label=what, shrink=0.9, ticks=LogLocator(subs=(1, 2, 5)), format="{x:g}")
    bar.ax.minorticks_off()
    grid.set_xlabel(f"sub-keys of {words.users}, fullest first")
    grid.set_ylabel("sub-keys of items, fullest first")
    grid.tick_params(length=0)
    for axis in (grid.xaxis, grid.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if len(used):
        low, high = float(used.min()), float(used.max())
        edges = np.geomspace(low * 0.999, max(high, low * 1.01) * 1.001, 41)
        bars.hist(used, bins=edges, weights=np.full(len(used), 1 / lengths.size), color=COLOURS[0])
        bars.set_xscale("log")
        marks = [mark for mark in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
                 if edges[0] <= mark <= edges[-1]]  # fmt: skip
        bars.set_xticks(marks, [f"{mark:g}" for mark in marks])
        bars.minorticks_off()
    bars.set_xlabel("length of a cell, 1 is one pair kept whole")
    bars.set_ylabel("share of all cells")
    bars.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    bars.annotate(
        f"{_percent(usage['in_use'])} in use,\n{_percent(1 - usage['in_use'])} empty", (0.97, 0.95),
        xycoords="axes fraction", ha="right", va="top",
    )  # fmt: skip
    _save(figure, path)


def draw_categories(contents: Contents, chosen: Sequence[int], threshold: float, words: Words, path: Path) -> None:
    """What the memory says of the chosen categories, of users with an event and of those without.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(9.5, 1.5 + 0.55 * len(chosen)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, column in enumerate(chosen):
        truly = contents.counts[:, column] > 0
        for of, colour, shift, label in (
            (truly, COLOURS[1], -0.17, f"{words.users} who {words.bought} it"),
            (~truly, GREY, 0.17, f"{words.users} who did not"),
        ):
            if of.any():
                _box(axes, np.quantile(contents.projections[of, column], (0.05, 0.25, 0.5, 0.75, 0.95)), place + shift,
                     colour, label)  # fmt: skip
    axes.axvline(threshold, color="black", linewidth=1, linestyle=(0, (4, 3)), label="above: recalled")
    axes.set_yticks(range(len(chosen)), [_short(words.value(contents.category_names[column])) for column in chosen])
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.set_xlabel("projection: middle half thick, 5 % to 95 % thin, median white")
    axes.set_title(f"What the memory says of each {words.user}", fontsize=12, loc="left")
    _plain(axes, "x")
    handles, labels = axes.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    figure.legend(kept.values(), kept.keys(), loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def draw_recall(recall: dict[str, Any], words: Words, path: Path) -> None:
    """Projections by the true number of events, and the share above the threshold.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (boxes, shares) = _panels(11.5, 4.4, "Projection by the true number of events", "Pairs that are recalled")
    bins = recall["by_count"]
    for place, each in enumerate(bins):
        _box(boxes, each["quantiles"], place, COLOURS[0], None, upright=True)
    boxes.axhline(recall["threshold"], color="black", linewidth=1, linestyle=(0, (4, 3)))
    boxes.annotate(
        "above: recalled", (1.0, recall["threshold"]), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        fontsize=9, xytext=(0, 2), textcoords="offset points",
    )  # fmt: skip
    boxes.set_ylabel("projection: middle half thick, 5 % to 95 % thin")
    shares.bar(range(len(bins)), [each["above_threshold"] for each in bins], color=COLOURS[0], width=0.7)
    for place, each in enumerate(bins):
        shares.annotate(
            _percent(each["above_threshold"]), (place, each["above_threshold"]), ha="center", va="bottom", fontsize=9
        )
    shares.set_ylim(0, 1.08)
    shares.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    shares.set_ylabel("share of the pairs")
    for axes in (boxes, shares):
        axes.set_xticks(range(len(bins)), [f"{_range(each)}\n{_thousands(each['pairs'])}" for each in bins])
        axes.set_xlabel(f"times {words.chosen} (below: number of pairs)")
    _save(figure, path)


def draw_profiles(profiles: dict[str, Any], percentiles: Any, words: Words, path: Path) -> None:
    """How many of the true top categories are recalled, and how alike the nearest by memory truly are.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (bars, curve) = _panels(
        11.5, 4.4, f"Of the true top {TOP}, recalled as top {TOP}", f"How alike the nearest {words.user} truly is"
    )
    total = max(1, profiles["users"])
    for shift, key, colour, label in (
        (-0.2, "overlaps", COLOURS[0], "by the memory"),
        (0.2, "overlaps_other", GREY, f"control: another {words.user}'s"),
    ):
        bars.bar(np.arange(TOP + 1) + shift, np.array(profiles[key]) / total, 0.38, color=colour, label=label)
    bars.set_xlabel(f"{words.categories} that agree")
    bars.set_ylabel(f"share of {words.users}")
    bars.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    bars.legend(frameon=False)
    for key, label, style in (
        ("all", f"nearest of all {words.users}", {"color": COLOURS[0]}),
        ("elsewhere", "nearest outside the own cells", {"color": COLOURS[1], "histtype": "step", "linewidth": 1.8}),
    ):
        values = percentiles[key]
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            curve.hist(values, bins=np.linspace(0, 1, 21), weights=weights, label=label, **style)
    curve.axhline(0.05, color="black", linewidth=1, linestyle=(0, (4, 3)), label="chance")
    curve.set_xlim(0, 1)
    curve.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    curve.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    curve.set_xlabel(f"{words.users} that are truly less alike than the nearest by memory")
    curve.set_ylabel(f"share of {words.users}")
    curve.legend(frameon=False, loc="upper left")
    _save(figure, path)


def _box(
    axes: Axes, quantiles: Sequence[float] | Any, place: float, colour: str, label: str | None, upright: bool = False
) -> None:
    low, first, middle, third, high = (float(value) for value in quantiles)
    for start, end, width in ((low, high, 1.6), (first, third, 8.0)):
        span = ([place, place], [start, end]) if upright else ([start, end], [place, place])
        axes.plot(*span, color=colour, linewidth=width, solid_capstyle="butt", label=label if width > 2 else None)
    dot = (place, middle) if upright else (middle, place)
    axes.plot(*([value] for value in dot), marker="o", color="white", markersize=4, markeredgecolor=colour)


def _panels(width: float, height: float, *titles: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(titles))
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=12, loc="left")
        _plain(axes, "y")
    return figure, panels


def _plain(axes: Axes, along: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=along, color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _prove_writable(folder: Path) -> None:
    """Make ``folder`` and write in it, before minutes go into what is to be stored there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"--out {folder}: the folder cannot be written: {error.strerror}") from error


def _drawn(found: dict[str, Any]) -> str:
    users, in_all = found["users"], found["users_in_all"]
    return f"{users:,}" if users == in_all else f"a draw of {users:,} of {in_all:,}"


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word if count == 1 else Words.plural(word)}"


def _range(each: dict[str, Any]) -> str:
    if each["to"] is None:
        return f"{COUNT_EDGES[-1]}+"
    return str(each["from"]) if each["to"] == each["from"] + 1 else f"{each['from']}-{each['to'] - 1}"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _escaped(name: str) -> str:
    return name.replace("|", "\\|")


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _thousands(count: int) -> str:
    return f"{count / 1000:,.0f} k" if count >= 10_000 else f"{count:,}"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
