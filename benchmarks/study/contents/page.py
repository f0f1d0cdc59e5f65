"""The page of ``python -m benchmarks.study contents``: Markdown of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.study.contents.figures import PICTURES
from benchmarks.study.contents.measures import TOP
from benchmarks.study.contents.words import Words, counted, drawn, escaped, number, percent, spoken

MOST_NEIGHBOURS = 6
"""Categories that a table names in one cell."""


def page(found: dict[str, Any], words: Words) -> str:
    """The page as Markdown, from what :func:`write_contents` returns."""
    users, categories, user, category = words.users, words.categories, words.user, words.category
    usage, recall, profiles = found["usage"], found["recall"], found["profiles"]
    N = found["settings"]["model"]["memory"]["sub_keys"]
    nearest, own, other = profiles["nearest"], recall["own"], recall["other"]
    length = usage["length"]
    lines = [
        f"The memory as it is when the test part begins: {drawn(found)} {users}, {found['categories']:,} "
        f"{categories} and {found['events']:,} events before that moment, of which the memory was shown "
        f"{percent(found['events_shown'] / found['events'])}. Asked about a pair ({user}, {category}) it answers with "
        "a number, the *projection*: 0 if it knows nothing of the pair, towards 1 the more often the pair was "
        "written. Controls judge the same answers by another "
        f"{user}'s truth, drawn at random.",
        f"**How full it is.** {percent(usage['in_use'])} of {usage['cells']:,} cells (kind of item, kind of "
        f"{user}) hold something; every item feature writes here, each for itself. "
        f"{usage['sub_keys_in_use'][0]:,} of {N:,} kinds of item and "
        f"{usage['sub_keys_in_use'][1]:,} of {N:,} kinds of {user} are in use."
        + (
            f" The fullest hundredth of all cells holds {percent(usage['share_of_fullest_hundredth'])} of all that is "
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
                    escaped(words.value(each["name"])),
                    str(each["sub_key"]),
                    words.values(each["shares_with"], MOST_NEIGHBOURS),
                    ", ".join(
                        counted(count, spoken(name.removesuffix("_id")))
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
                [name, *(number(of[key]) for key in ("auc", "auc_within_user", "spearman"))]
                for name, of in (("the memory", own), (f"control: another {user}'s", other))
            ],
        ),
        f"![Projection by the true number of events]({PICTURES[2]})",
        _profiles_in_words(profiles, words),
        f"![Profiles and nearest {users}]({PICTURES[3]})",
        f"The nearest {user} by memory is more alike, by true counts, than {percent(nearest['percentile'])} of all "
        f"{users} (50 % would be chance), and among the most alike hundredth for "
        f"{percent(nearest['first_in_hundred'])} of {users} (chance: 1 %). Mean cosine of true counts with the "
        f"nearest by memory {nearest['cosine']:.3f}, with a random {user} {nearest['cosine_random']:.3f}, with the "
        f"truly nearest {nearest['cosine_best']:.3f}. {percent(nearest['same_sub_key'])} of the nearest share their "
        f"sub-key with the {user} ({percent(nearest['same_sub_key_by_chance'], 2)} by chance): {users} in the same "
        "cells read a little of each other."
        + (
            f" With those left out, the nearest is more alike than {percent(nearest['percentile_elsewhere'])}."
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
            f"{escaped(words.value(name))} ({count:,})"
            for name, count in zip(one["true_top"], one["true_counts"], strict=True)
        )

    def rest(one: dict[str, Any]) -> list[str]:
        recalled = words.values(one["recalled_top"])
        return [f"{one['events']:,}", top(one), recalled, f"{one['agree']} of {len(one['true_top'])}"]

    header = [words.user, "cosine in the memory", "cosine of true counts", "same cells", "events"]
    header += [f"truly the top {TOP} (times)", f"recalled as the top {TOP}", "agree"]
    rows = [[f"**{escaped(each['name'])}**", "", "", "", *rest(each)]]
    for one in each["nearest"]:
        cosines = [f"{one[name]:.3f}" for name in ("cosine_memory", "cosine_truth")]
        rows.append([escaped(one["name"]), *cosines, "yes" if one["same_sub_key"] else "no", *rest(one)])
    return [
        f"{words.user.capitalize()} **{escaped(each['name'])}** and the nearest by memory:",
        _markdown(header, rows),
    ]


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
