from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from store_builds import metadata

import qaserve.core.clustering
from ingest.cluster_diff import Grouping, match, numbered, regroup
from ingest.clusters import describe_changes, make_clusters
from ingest.corpus import Corpus, Documents, LiveBuild
from ingest.drift import CHANGED_DRIFT, centroids, clustering_of, measure_drift
from ingest.names import Words, describe_clusters
from ingest.pairs import PairTable
from qaserve.builds import bundle as bundles
from qaserve.schemas.ingest import Drift
from qaserve.schemas.pairs import Pair
from qaserve.schemas.params import Hyperparameters
from qaserve.settings import FitSettings
from qaserve.store import BuildRef

D = 16


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def place(rng):
    """Points around one of the axes: the cluster that they are in is plain to see."""

    def place(axis, count, spread=0.05):
        return unit(np.eye(D)[[axis] * count] + spread * rng.normal(size=(count, D)))

    return place


def words_of(pairs):
    words = Words()
    for pair in pairs:
        words.add(pair)
    return words


def corpus_of(answers, start=0):
    """Pairs of these answer vectors; ids and texts follow from the number, and questions and topics lie elsewhere."""
    pairs = {}
    for number in range(start, start + len(answers)):
        pair = Pair(
            pair_id=f"p{number}", cluster_id="c", question=f"q{number}", answer=f"a{number}", source_file="f.jsonl"
        )
        pairs[f"{number:06}"] = pair
    rows = answers.astype(np.float32)
    return Corpus(PairTable.of(pairs), rows[::-1], rows, rows[::-1], np.ones(len(rows)))


def live_of(corpus, clusters, encoder, fit):
    """What is live when a corpus with these clusters went live."""
    about = metadata(BuildRef("c", "0" * 12), len(corpus.pairs), encoder=encoder.identity, clusters=clusters.count)
    described = describe_clusters(words_of(corpus.pairs.values()), clusters.labels, clusters.count, clusters.names)
    manifest = bundles.Manifest(
        build="0" * 12, corpus="c", corpus_hash="", encoder=encoder.identity, pairs=len(corpus.pairs),
        hyperparameters=Hyperparameters(), precision=0.75, rank_form=fit.rank_form,
        max_clusters=fit.max_clusters, seed=fit.seed, effective_rank=1.0,
        bm25=about.bm25, clustering=clusters.made, clusters=described, files={},
    )  # fmt: skip
    return LiveBuild(about, manifest, corpus, clusters.labels, Documents())


def joined(*parts):
    """Corpora as one, in the order of ids."""
    pairs = {}
    for part in parts:
        pairs |= part.pairs
    rows = np.concatenate([part.answers for part in parts])
    return Corpus(PairTable.of(pairs), rows[::-1], rows, rows[::-1], np.ones(len(rows)))


def partition(labels):
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@pytest.fixture
def fit():
    return FitSettings(max_clusters=4)


@pytest.fixture
def first(place):
    return corpus_of(np.concatenate([place(axis, count) for axis, count in ((0, 40), (1, 30), (2, 20), (3, 10))]))


@pytest.fixture
def live(first, encoder, fit):
    return live_of(first, make_clusters(first, None, fit), encoder, fit)


def test_the_first_clusters_are_those_of_the_pairs_alone(first, fit):
    clusters = make_clusters(first, None, fit)
    assert clusters.count == 4
    assert np.bincount(clusters.labels).tolist() == [40, 30, 20, 10], "largest first"
    assert (clusters.live, clusters.kept, clusters.drift) == (None, False, None)
    assert describe_changes(clusters, first, ["w", "x", "y", "z"]) is None


def test_a_few_new_pairs_join_the_nearest_cluster_and_nobody_moves(first, live, place, fit):
    more = joined(first, corpus_of(place(2, 3), start=100))
    clusters = make_clusters(more, live, fit)
    assert clusters.kept
    np.testing.assert_array_equal(clusters.labels[:100], live.labels)
    assert clusters.labels[100:].tolist() == [live.labels[75]] * 3
    changes = describe_changes(clusters, more, live.cluster_names)
    assert not changes.reclustered
    assert (changes.moved, changes.appeared, changes.vanished, changes.split, changes.merged) == (0, (), (), (), ())
    assert not changes.drift


def test_an_edited_answer_joins_the_nearest_cluster_too(first, live, place, fit):
    pairs = dict(first.pairs)
    pairs["000000"] = pairs["000000"].model_copy(update={"answer": "another"})
    rows = first.answers.copy()
    rows[0] = place(3, 1)[0]
    clusters = make_clusters(Corpus(PairTable.of(pairs), rows[::-1], rows, rows[::-1], first.priors), live, fit)
    assert clusters.labels[0] == live.labels[99]
    np.testing.assert_array_equal(clusters.labels[1:], live.labels[1:])
    assert clusters.made.changed == 1


def test_a_cluster_that_lost_all_its_pairs_leaves_no_hole(first, live, fit):
    kept = [row for row in range(100) if row < 70 or row >= 90]
    left = first.take(np.array(kept))
    clusters = make_clusters(left, live, FitSettings(max_clusters=4, drift="recommend"))
    assert clusters.kept
    assert np.bincount(clusters.labels).tolist() == [40, 30, 10], "the last took the number that became free"
    changes = describe_changes(clusters, left, [clusters.names[number] for number in range(3)])
    assert changes.vanished == (live.cluster_names[2],)
    assert [(one.was, one.now) for one in changes.renumbered] == [(3, 2)]
    assert changes.moved == 0
    assert clusters.names[2] == live.cluster_names[3], "its name went with it"


def test_many_new_pairs_of_another_kind_are_drift_and_cluster_anew(first, live, place, encoder):
    fit = FitSettings(max_clusters=5)
    live = replace(live, manifest=live.manifest.model_copy(update={"max_clusters": 5}))
    more = joined(first, corpus_of(place(7, 40), start=100))
    clusters = make_clusters(more, live, fit)
    assert not clusters.kept
    assert any("far from every cluster" in reason for reason in clusters.drift.reasons)
    assert any("pairs changed" in reason for reason in clusters.drift.reasons)
    assert clusters.count == 5
    np.testing.assert_array_equal(clusters.labels[:100], live.labels)
    assert set(clusters.labels[100:].tolist()) == {4}, "the new cluster got the free number"
    changes = describe_changes(clusters, more, [clusters.names.get(number, "new one") for number in range(5)])
    assert (changes.reclustered, changes.moved, changes.appeared) == (True, 0, ("new one",))
    assert clusters.made.changed == 0, "drift is measured from here on"


def test_drift_is_only_said_where_that_is_set(first, live, place):
    more = joined(first, corpus_of(place(7, 40), start=100))
    clusters = make_clusters(more, live, FitSettings(max_clusters=4, drift="recommend"))
    assert clusters.kept
    assert clusters.drift
    np.testing.assert_array_equal(clusters.labels[:100], live.labels)
    assert describe_changes(clusters, more, live.cluster_names).recommended


def test_small_changes_add_up_to_drift(first, live, place, encoder, fit):
    corpus, before, steps = first, live, 0
    while True:
        corpus = joined(corpus, corpus_of(place(steps % 4, 4), start=100 + 4 * steps))
        clusters = make_clusters(corpus, before, fit)
        steps += 1
        if not clusters.kept:
            break
        assert clusters.made.changed == 4 * steps
        assert clusters.made.changed <= CHANGED_DRIFT * len(corpus.pairs)
        before = live_of(corpus, clusters, encoder, fit)
    assert 4 * steps > CHANGED_DRIFT * len(corpus.pairs)


@pytest.mark.parametrize("changed", [{"max_clusters": 2}, {"seed": 5}, {"rank_form": "entropy"}])
def test_other_settings_cluster_anew(first, live, changed):
    clusters = make_clusters(first, live, FitSettings(**{"max_clusters": 4} | changed))
    assert not clusters.kept
    assert clusters.drift is None, "figures of other settings cannot be compared"
    assert clusters.count == changed.get("max_clusters", 4)


def test_clusters_made_anew_keep_numbers_that_the_pairs_alone_would_not_give(first, encoder, place, fit):
    live = live_of(first, make_clusters(first, None, fit), encoder, fit)
    more = joined(first, corpus_of(place(3, 60), start=100))
    alone = make_clusters(more, None, fit)
    clusters = make_clusters(more, live, fit, recluster=True)
    assert partition(alone.labels) == partition(clusters.labels)
    assert alone.labels[99] == 0, "now the largest"
    assert clusters.labels[99] == live.labels[99] == 3
    assert clusters.names == dict(enumerate(live.cluster_names))


def test_vectors_of_another_encoder_are_clustered_from_scratch_and_matched(first, live, rng, fit):
    turn, _ = np.linalg.qr(rng.normal(size=(D + 4, D + 4)))
    rows = (np.pad(first.answers, ((0, 0), (0, 4))) @ turn).astype(np.float32)
    clusters = make_clusters(Corpus(first.pairs, rows, rows, rows, first.priors), live, fit, comparable=False)
    assert clusters.drift is None
    np.testing.assert_array_equal(clusters.labels, live.labels)
    assert clusters.names == dict(enumerate(live.cluster_names))


def test_a_corpus_without_a_pair_in_common_is_clustered_as_if_there_were_none(live, place, fit):
    other = corpus_of(np.concatenate([place(axis, 20) for axis in (4, 5, 6, 7)]), start=500)
    clusters, alone = make_clusters(other, live, fit), make_clusters(other, None, fit)
    np.testing.assert_array_equal(clusters.labels, alone.labels)
    assert clusters.names == {}
    assert clusters.made == alone.made


# Drift


def test_no_measure_moves_where_nothing_does(first, live, fit):
    means = centroids(first.answers, live.labels, 4)
    made = clustering_of(first.answers, live.labels, 4, fit.rank_form)
    drift = measure_drift(made, first.answers, live.labels, means, np.zeros(100, bool), fit.rank_form)
    assert (drift.far, drift.changed, drift.reasons) == (0, 0, ())
    assert drift.rank == pytest.approx(0, abs=1e-3)
    assert drift.inertia == pytest.approx(0, abs=1e-3)


def test_answers_all_alike_have_no_inertia_to_compare_with(fit):
    rows = np.tile(np.eye(D)[0], (5, 1))
    labels = np.zeros(5, dtype=np.int64)
    made = clustering_of(rows, labels, 1, fit.rank_form)
    drift = measure_drift(made, rows, labels, centroids(rows, labels, 1), np.zeros(5, bool), fit.rank_form)
    assert drift == Drift(rank=0, inertia=0, far=0, changed=0, reasons=())


def test_a_few_far_answers_are_no_drift(first, live, place, fit):
    more = joined(first, corpus_of(place(9, 5), start=100))
    clusters = make_clusters(more, live, FitSettings(max_clusters=4, drift="recommend"))
    assert clusters.drift.far == 1
    assert not any("far" in reason for reason in clusters.drift.reasons)


# Regrouping


@pytest.mark.parametrize("live_or_none", [True, False])
def test_many_answers_are_clustered_in_batches_with_and_without_live_clusters_and_alike_each_time(
    first, live, place, fit, monkeypatch, live_or_none
):
    corpus = joined(first, corpus_of(np.concatenate([place(axis, 12) for axis in (6, 7, 8)]), start=200))
    base = live if live_or_none else None
    by_all = make_clusters(corpus, base, fit, recluster=True)
    made = []

    class Batches(MiniBatchKMeans):
        def fit(self, rows):
            made.append((self.init if isinstance(self.init, str) else "means", rows.dtype.name))
            return super().fit(rows)

    monkeypatch.setattr(qaserve.core.clustering, "MANY", 10)
    monkeypatch.setattr("sklearn.cluster.MiniBatchKMeans", Batches)
    found, again = (make_clusters(corpus, base, fit, recluster=True) for _ in range(2))
    assert made == [("means" if live_or_none else "k-means++", "float32")] * 2
    np.testing.assert_array_equal(found.labels, again.labels)
    assert (np.bincount(found.labels, minlength=found.count) > 0).all(), "no cluster is empty"
    assert found.made.inertia < 1.5 * by_all.made.inertia


def grouping(*labels):
    return Grouping({str(point): label for point, label in enumerate(labels) if label is not None}, max(
        label for label in labels if label is not None) + 1)  # fmt: skip


def test_matching_is_one_to_one_and_shares_the_most_pairs():
    before = grouping(0, 0, 0, 1, 1, 1, 2, 2)
    after = grouping(1, 1, 0, 0, 0, 0, 2, 2)
    assert match(before, after) == {0: 1, 1: 0, 2: 2}


def test_clusters_that_share_too_little_are_not_matched():
    before, after = grouping(*[0] * 10), grouping(*range(10))
    assert match(before, after) == {}


def test_numbers_have_no_holes_and_are_kept_where_that_can_be():
    assert numbered([0, 1, 2], {0: 2, 1: 7}) == {0: 2, 1: 0, 2: 1}
    assert numbered([5, 1], {5: 5, 1: 1}) == {1: 1, 5: 0}


def test_what_split_and_what_merged_is_said_by_name():
    before = grouping(0, 0, 0, 0, 1, 1, 2, 2)
    after = grouping(0, 0, 1, 1, 2, 2, 2, 2)
    origins = match(before, after)
    found = regroup(before, after, origins, ["one", "two", "three"], ["one", "half", "both"])
    assert [(one.before, one.after) for one in found.split] == [(("one",), ("one", "half"))]
    assert [(one.before, one.after) for one in found.merged] == [(("two", "three"), ("both",))]
    assert found.moved == 4, "two pairs of the split one, and the one of the merged that does not go on"
    assert found.appeared == ("half",)
    assert len(found.vanished) == 1
    assert found.vanished[0] in {"two", "three"}


def test_the_same_clusters_are_no_change(rng):
    labels = Grouping({str(point): int(label) for point, label in enumerate(rng.integers(0, 5, 50))}, 5)
    names = [f"n{number}" for number in range(5)]
    found = regroup(labels, labels, match(labels, labels), names, names)
    assert (found.moved, *found.appeared, *found.vanished, *found.renumbered) == (0,)


# Names


def test_a_name_stays_while_a_word_of_it_is_a_term_of_the_cluster(rows):
    pairs = [
        Pair(pair_id=row["pair_id"], cluster_id="c", question=row["question"], answer="a", source_file="f")
        for row in rows(["bread", "wine"])
    ]
    labels = np.repeat([0, 1], 4)
    plain = describe_clusters(words_of(pairs), labels, 2)
    kept = describe_clusters(words_of(pairs), labels, 2, {0: "bread · oven · flour", 1: "steel · iron"})
    assert kept[0].name == "bread · oven · flour"
    assert kept[0].terms == plain[0].terms
    assert kept[1].name == plain[1].name, "a name that says nothing of it any more is not kept"


def test_a_new_cluster_does_not_take_a_name_that_is_kept(rows):
    pairs = [
        Pair(pair_id=row["pair_id"], cluster_id="c", question=row["question"], answer="a", source_file="f")
        for row in rows(["bread", "wine"])
    ]
    labels = np.repeat([0, 1], 4)
    taken = describe_clusters(words_of(pairs), labels, 2)[0].name
    named = describe_clusters(
        words_of([*pairs[4:], *pairs[:4]]), labels, 2, {0: taken.replace("bread", "wine"), 1: taken}
    )
    assert named[1].name == taken
    assert len({cluster.name for cluster in named}) == 2
