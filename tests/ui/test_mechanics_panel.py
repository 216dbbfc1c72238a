"""What the panel says of a vote, and the rows that its charts draw."""

import pytest

from qaserve.schemas.ask import AskRequest, Hit
from ui.mechanics import mechanics, sweep
from ui.mechanics_panel import OTHERS, WIDTH, cluster_table, summary, sweep_rows, temperatures, weight_rows

NAMES = {0: "zero", 1: "one"}


def voted(*rows):
    return tuple(
        Hit(id="i", pair_id="p", question="q", similarity=similarity, prior=1, probability=0, cluster=cluster)
        for similarity, cluster in rows
    )


MANY = voted((0.9, 0), (0.88, 1), (0.88, 1), (0.88, 1))
STRONG = voted((0.9, 0), (0.7, 1), (0.7, 1), (0.7, 1))
BOTH = voted((0.9, 0), (0.89, 0), (0.7, 1))


@pytest.mark.parametrize(
    ("hits", "words"),
    [
        (MANY, "and **zero** would lead with 60%. Many matches decide, not the strongest one."),
        (STRONG, "One strong match decides"),
        (BOTH, "its other hits add to the lead"),
        (voted((0.9, 1)), "All hits are in this cluster."),
    ],
)
def test_the_summary_says_whether_one_match_decides_or_many(hits, words):
    found = mechanics(hits, 0.05, priors=True)
    text = summary(found, NAMES)
    assert words in text
    assert f"**{NAMES[found.clusters[0].cluster]}** gets **{found.clusters[0].weight:.0%}**" in text


def test_bars_of_weights_end_where_their_share_of_a_fixed_axis_is():
    found = mechanics(MANY, 0.05, priors=True)
    frame = weight_rows(found, NAMES, {0: "red", 1: "blue"})
    expected = [share for state in found.clusters for share in (state.weight, state.best_weight)]
    assert (frame["x2"] / WIDTH).tolist() == pytest.approx(expected)
    assert frame["colour"].tolist()[::2] == ["blue", "red"], "cluster 1 leads"


def test_the_sweep_holds_its_bounds_and_every_marked_temperature():
    assert {0.01, 0.05, 0.3, 0.5} <= set(temperatures(0.05, 0.3))
    assert (min(temperatures(0.05)), max(temperatures(0.05))) == (0.01, 0.5)
    assert (min(temperatures(0.001)), max(temperatures(2.0))) == (0.001, 2.0)


def test_the_sweep_draws_the_first_clusters_and_the_others_together(engine):
    trace = engine.ask(AskRequest(question="how to make bread and cheese and wine")).explained
    found = mechanics(trace.hits, trace.params.temperature, priors=trace.params.priors)
    called = {vote.cluster: vote.name for vote in trace.clusters}
    asked = temperatures(0.2, trace.params.temperature)
    frame = sweep_rows(sweep(trace.hits, asked, priors=trace.params.priors), found, called)
    assert set(frame["temperature"]) == set(asked)
    assert frame.groupby("temperature")["weight"].sum().tolist() == pytest.approx([1] * frame["temperature"].nunique())
    now = frame[frame["temperature"] == trace.params.temperature].set_index("cluster")["weight"]
    for vote in trace.clusters[:5]:
        assert now[vote.name] == pytest.approx(vote.weight)
    assert (OTHERS in now) == (len(found.clusters) > 5)


def test_the_table_has_a_row_for_each_cluster():
    found = mechanics(MANY, 0.05, priors=True)
    table = cluster_table(found.clusters, NAMES)
    assert table["cluster"].tolist() == ["one", "zero"]
    assert table["hits (g)"].tolist() == [3, 1]
    assert table["free energy"].tolist() == [state.free_energy for state in found.clusters]
    assert table["by best hit alone"].tolist() == [state.best_weight for state in found.clusters]
