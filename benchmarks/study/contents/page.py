"""The page of ``python -m benchmarks.study contents``: the template ``page.md`` filled with what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks.study.contents.profiles import TOP
from benchmarks.study.contents.words import Words, escaped
from benchmarks.study.tables import markdown_table

TEMPLATE = Path(__file__).with_name("page.md")
MAX_NAMES = 6
"""Categories that a table names in one place."""


def page(found: dict[str, Any], words: Words) -> str:
    """The page as Markdown, from what :func:`benchmarks.study.contents.command.write_contents` returns."""
    usage, profiles, N = found["usage"], found["profiles"], found["settings"]["model"]["memory"]["sub_keys"]
    users, in_all, nearest = found["users"], found["users_in_all"], found["profiles"]["nearest"]
    elsewhere = nearest["percentile_elsewhere"]
    text = TEMPLATE.read_text(encoding="utf-8").format(
        found=found,
        usage=usage,
        recall=found["recall"],
        nearest=nearest,
        N=N,
        slots=N**2,
        user=words.user,
        users=words.users,
        category=words.category,
        categories=words.categories,
        sampled=f"{users:,}" if users == in_all else f"a random {users:,} of {in_all:,}",
        written=found["events_shown"] / found["events"],
        norms=_norms(usage),
        categories_table=_categories(found, words),
        recall_table=_recall(found, words),
        overlap=_overlap(profiles, words),
        elsewhere="" if elsewhere is None else f"Without these, the nearest is more similar than {elsewhere:.1%}.",
    )
    blocks = [text.strip(), *(block for each in profiles["examples"] for block in _example(each, words))]
    return re.sub(r"(\d)%", r"\1 %", "\n\n".join(line.rstrip() for line in blocks)) + "\n"


def _norms(usage: dict[str, Any]) -> str:
    if not usage["length"]:
        return ""
    share, median, largest = usage["share_of_fullest_hundredth"], usage["length"]["0.5"], usage["length"]["1"]
    return (
        f"The fullest 1% of the slots hold {share:.1%} of the sum of all norms. The median norm of a slot in use is "
        f"{median:.3f}, the largest {largest:.3f}; a bound code has norm 1."
    )


def _categories(found: dict[str, Any], words: Words) -> str:
    header = [words.category, "sub-key", f"other {words.categories} there", "other ids there", "slots in use",
              f"{words.users} with an event", "recalled", "rightly", f"sub-keys of recalled {words.users}"]  # fmt: skip
    rows = []
    for each in found["chosen"]:
        ids = [
            f"{count:,} {words.counted(name, count)}"
            for name, count in each["members_of_sub_key"].items()
            if name != found["feature"]
        ]
        counts = [each[key] for key in ("cells_in_use", "users", "recalled", "rightly", "cells_recalled")]
        shared = words.values(each["shares_with"], MAX_NAMES)
        start = [escaped(words.value(each["name"])), str(each["sub_key"]), shared, ", ".join(ids) or "-"]
        rows.append([*start, *(f"{count:,}" for count in counts)])
    return markdown_table(header, rows)


def _recall(found: dict[str, Any], words: Words) -> str:
    keys = ("auc", "auc_within_user", "spearman")
    rows = [
        [name, *("-" if found["recall"][of][key] is None else f"{found['recall'][of][key]:.4f}" for key in keys)]
        for name, of in (("the memory", "own"), (f"control: another {words.user}", "other"))
    ]
    return markdown_table(["", "AUC", f"AUC within a {words.user}", "Spearman"], rows)


def _overlap(profiles: dict[str, Any], words: Words) -> str:
    if profiles["overlap"] is None:
        return f"No {words.user} has {TOP} {words.categories}, so there is no top {TOP} to compare."
    own, other, users = TOP * profiles["overlap"], TOP * profiles["overlap_other"], profiles["users"]
    return (
        f"Of the {TOP} {words.categories} with the most events, {own:.2f} are among the {TOP} with the highest "
        f"familiarity, and {other:.2f} among those of another {words.user} ({users:,} {words.users} with {TOP} "
        f"{words.categories} or more)."
    )


def _example(each: dict[str, Any], words: Words) -> list[str]:
    def rest(one: dict[str, Any]) -> list[str]:
        true = zip(one["true_top"], one["true_counts"], strict=True)
        names = ", ".join(f"{escaped(words.value(name))} ({count:,})" for name, count in true)
        return [
            f"{one['events']:,}",
            names,
            words.values(one["recalled_top"]),
            f"{one['agree']} of {len(one['true_top'])}",
        ]

    header = [words.user, "cosine of profiles", "cosine of true counts", "same sub-key", "events",
              f"top {TOP} by events", f"top {TOP} by familiarity", "agree"]  # fmt: skip
    rows = [[f"**{escaped(each['name'])}**", "", "", "", *rest(each)]]
    for one in each["nearest"]:
        cosines = [f"{one[name]:.3f}" for name in ("cosine_memory", "cosine_truth")]
        rows.append([escaped(one["name"]), *cosines, "yes" if one["same_sub_key"] else "no", *rest(one)])
    title = f"{words.user.capitalize()} **{escaped(each['name'])}** and the nearest by profile:"
    return [title, markdown_table(header, rows)]
