"""The metrics on lists that four systems gave for one database, short ones too, against plain counting.

The lists are no part of the project: without `$SISH_DATA/published_results` these tests skip.
"""

import csv

import numpy as np
import pytest

from sish.answers import Answered, group_rows, never_found, query_rows
from sish.metrics import retrieval_metrics

SYSTEMS = ("hshr", "retccl", "sish", "yottixel")
KINDS = {"site": 10, "sub_type": 5}
"""Results that vote: for the organ, among all slides; for the diagnosis, within the organ."""


@pytest.fixture(scope="module")
def published(data_dir):
    folder = data_dir / "published_results"
    if not folder.is_dir():
        pytest.skip(f"no published lists at {folder}: set SISH_DATA to a folder that holds them")
    return folder


def lists(folder, system, kind):
    """Read all lists of a system: query, its label, and the labels of its results, of any number."""
    column = "site" if kind == "site" else "diagnosis"
    out = []
    for path in sorted(folder.glob(f"{system}/*/{kind}.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                ranks = range(1, KINDS[kind] + 1)
                found = [row[f"ret_{rank}_{column}"] or "" for rank in ranks if row[f"ret_{rank}_name"]]
                out.append((f"{path.parent.name} {row['query_name']}", row[f"query_{column}"], found, path))
    return out


def plain_vote(found, k):
    """Return the most frequent of the first k labels, the earlier of two; None if too few say so."""
    best, most = None, 0
    for label in found[:k]:
        votes = len([other for other in found[:k] if other == label])
        if votes > most:
            best, most = label, votes
    return best if len(found) >= k or 2 * most >= k else None


def plain_precision(label, found, k, divisor=None):
    """Return the sum of the precisions at right ranks, over their number or over the divisor."""
    total, right = 0.0, 0
    for rank in range(1, min(k, len(found)) + 1):
        if found[rank - 1] == label:
            right += 1
            total += right / rank
    return total / (divisor or max(1, right))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_figure_is_that_of_plain_counting(published, system, kind):
    asked, k = lists(published, system, kind), KINDS[kind]
    assert len(asked) > 100
    found = retrieval_metrics([(label, hits) for _, label, hits, _ in asked], k)
    labels = sorted({label for _, label, _, _ in asked})
    shares = {name: [] for name in ("mmv", "map", "map_paper", "precision", "f1")}
    for label in labels:
        own = [hits for _, other, hits, _ in asked if other == label]
        right = sum(plain_vote(hits, k) == label for hits in own)
        voted = sum(plain_vote(hits, k) == label for _, _, hits, _ in asked)
        shares["mmv"].append(right / len(own))
        shares["map"].append(np.mean([plain_precision(label, hits, k) for hits in own]))
        shares["map_paper"].append(np.mean([plain_precision(label, hits, k, 5) for hits in own]))
        shares["precision"].append(np.mean([sum(hit == label for hit in hits[:k]) / k for hits in own]))
        shares["f1"].append(2 * right / (len(own) + voted))
    for name, values in shares.items():
        assert getattr(found, "macro_f1" if name == "f1" else name) == pytest.approx(np.mean(values)), name
    for at in (1, 3, 5):
        hits = [label in found_labels[:at] for _, label, found_labels, _ in asked]
        assert getattr(found, f"hit_{at}") == pytest.approx(np.mean(hits))
    assert found.short == sum(len(hits) < k for _, _, hits, _ in asked)
    assert [row.queries for row in found.by_label] == [
        sum(label == one for _, one, _, _ in asked) for label in labels
    ]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_tables_add_up_to_the_figures(published, system):
    """By diagnosis, with the organ as the site: every query is in one row of each table."""
    organs = {query: label for query, label, _, _ in lists(published, system, "site")}
    answers = [
        Answered(query, label, tuple(hits), relevant=1, site=organs.get(query, "?"))
        for query, label, hits, _ in lists(published, system, "sub_type")
    ]
    whole = retrieval_metrics([one.answer for one in answers])
    by_label, by_site = group_rows(answers, "label"), group_rows(answers, "site")
    assert np.mean([row["mv5"] for row in by_label]) == pytest.approx(whole.mmv)
    assert np.mean([row["f1_5"] for row in by_label]) == pytest.approx(whole.macro_f1)
    for rows in (by_label, by_site):
        assert sum(row["queries"] for row in rows) == len(answers)
        assert sum(row["hit5"] * row["queries"] for row in rows) / len(answers) == pytest.approx(whole.hit_5)
    right = [row["mv5"] == row["label"] for row in query_rows(answers)]
    assert sum(row["mv5"] * row["queries"] for row in by_site) == pytest.approx(sum(right))
    unfound = {one.label for one in answers} - {one.label for one in answers if one.label in one.found[:5]}
    assert never_found(answers) == sorted(unfound)


def test_short_lists_are_counted_as_their_source_says(published):
    """190 breast queries of SISH: 8.6 results on average, fewer than five for 22 of them."""
    asked = [each for each in lists(published, "sish", "site") if each[3].parent.name == "BRCA_HER2"]
    counts = [len(hits) for _, _, hits, _ in asked]
    assert (len(counts), round(float(np.mean(counts)), 1)) == (190, 8.6)
    found = retrieval_metrics([(label, hits) for _, label, hits, _ in asked], 5)
    assert found.short == 22
    votes = [row["mv5"] for row in query_rows([Answered("q", "breast", tuple(h), 1) for _, _, h, _ in asked])]
    short = [(vote, hits) for vote, (_, _, hits, _) in zip(votes, asked, strict=True) if len(hits) < 5]
    assert all((vote == "") == (max(map(hits.count, hits)) < 3) for vote, hits in short)
    assert {vote == "" for vote, _ in short} == {True, False}, "some short lists have a majority, some none"
