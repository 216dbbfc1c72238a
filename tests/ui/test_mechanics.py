"""Statistical mechanics of a vote, compared with sums that are written out from the definitions."""

from math import exp, log

import numpy as np
import pytest
from conftest import vote

from qaserve.schemas.ask import Hit
from ui.mechanics import entropy, mechanics, stable_range, sweep

TAU = 0.05
ROWS = (  # similarity, prior, cluster: cluster 7 has the best hit, cluster 2 has more hits, cluster 4 a large prior
    (0.90, 0.5, 7),
    (0.87, 1.0, 2),
    (0.86, 2.0, 2),
    (0.85, 1.5, 2),
    (0.80, 4.0, 4),
    (0.70, 1.0, 7),
)


def hit(similarity, prior, cluster):
    return Hit(id="i", pair_id="p", question="q", similarity=similarity, prior=prior, probability=0, cluster=cluster)


HITS = tuple(hit(*row) for row in ROWS)
BOLTZMANN = {
    7: [0.5 * exp((0.90 - 0.90) / TAU), 1.0 * exp((0.70 - 0.90) / TAU)],
    2: [1.0 * exp((0.87 - 0.90) / TAU), 2.0 * exp((0.86 - 0.90) / TAU), 1.5 * exp((0.85 - 0.90) / TAU)],
    4: [4.0 * exp((0.80 - 0.90) / TAU)],
}
TOTAL = sum(sum(factors) for factors in BOLTZMANN.values())


def by_cluster(found):
    return {state.cluster: state for state in found.clusters}


def test_every_figure_of_a_cluster_follows_its_definition():
    found = by_cluster(mechanics(HITS, TAU, priors=True))
    best_total = sum(max(factors) for factors in BOLTZMANN.values())
    assert set(found) == set(BOLTZMANN)
    for cluster, factors in BOLTZMANN.items():
        state = found[cluster]
        assert state.degeneracy == len(factors)
        assert state.partition == pytest.approx(sum(factors))
        assert state.free_energy == pytest.approx(-TAU * log(sum(factors)))
        assert state.weight == pytest.approx(sum(factors) / TOTAL)
        assert state.best_weight == pytest.approx(max(factors) / best_total)
    assert (found[7].best, found[2].best, found[4].best) == (0.90, 0.86, 0.80), "the prior decides which hit is best"


def test_energies_are_measured_from_the_best_hit_and_factors_hold_the_prior():
    found = mechanics(HITS, TAU, priors=True)
    assert found.energies == pytest.approx([0, 0.03, 0.04, 0.05, 0.10, 0.20])
    assert found.factors == pytest.approx([*BOLTZMANN[7][:1], *BOLTZMANN[2], *BOLTZMANN[4], *BOLTZMANN[7][1:]])


def test_the_largest_weight_is_first_and_many_hits_can_beat_the_best_one():
    order = [state.cluster for state in mechanics(HITS, TAU, priors=True).clusters]
    assert order == [2, 4, 7]
    plain = mechanics(HITS, TAU, priors=False).clusters
    assert [state.cluster for state in plain] == [2, 7, 4]
    assert plain[1].best_weight > plain[0].best_weight, "by best hits alone, 7 leads"


def test_weights_are_those_of_the_router():
    similarities, priors, clusters = (list(column) for column in zip(*ROWS, strict=True))
    for temperature in (0.01, TAU, 0.5):
        for used in (True, False):
            _, routed = vote(similarities, clusters, 8, temperature, priors if used else None)
            found = by_cluster(mechanics(HITS, temperature, priors=used))
            assert {one: state.weight for one, state in found.items()} == pytest.approx({k: routed[k] for k in found})


def test_entropies_and_effective_numbers_follow_their_definitions():
    found = mechanics(HITS, TAU, priors=True)
    shares = [factor / TOTAL for factors in BOLTZMANN.values() for factor in factors]
    weights = [sum(factors) / TOTAL for factors in BOLTZMANN.values()]
    assert found.entropy == pytest.approx(-sum(one * log(one) for one in shares))
    assert found.voters == pytest.approx(exp(-sum(one * log(one) for one in shares)))
    assert found.cluster_entropy == pytest.approx(-sum(one * log(one) for one in weights))
    assert found.effective_clusters == pytest.approx(exp(-sum(one * log(one) for one in weights)))


def test_equal_voters_all_count_and_a_single_one_is_one():
    equal = mechanics([hit(0.5, 1, cluster) for cluster in (0, 0, 1, 1)], TAU, priors=True)
    assert (equal.voters, equal.effective_clusters) == pytest.approx((4, 2))
    single = mechanics(HITS[:1], TAU, priors=True)
    assert (single.entropy, single.voters, single.effective_clusters) == pytest.approx((0, 1, 1))
    assert entropy([1.0, 0.0]) == 0


def test_a_temperature_that_underflows_gives_finite_free_energies():
    found = by_cluster(mechanics(HITS, 1e-4, priors=True))
    assert found[4].partition == 0
    assert found[4].free_energy == pytest.approx(0.10 - 1e-4 * log(4.0))
    assert found[7].weight == 1


def test_a_sweep_has_the_weights_of_each_temperature():
    temperatures = (0.01, TAU, 0.5)
    found = sweep(HITS, temperatures, priors=True)
    assert found.clusters == (2, 4, 7)
    for row, temperature in enumerate(temperatures):
        sums = {k: sum(p * exp((s - 0.9) / temperature) for s, p, c in ROWS if c == k) for k in found.clusters}
        assert found.weights[row] == pytest.approx([sums[k] / sum(sums.values()) for k in found.clusters])
    unweighted = sweep(HITS, (TAU,), priors=False)
    sums = {k: sum(exp((s - 0.9) / TAU) for s, _, c in ROWS if c == k) for k in found.clusters}
    assert unweighted.weights[0] == pytest.approx([sums[k] / sum(sums.values()) for k in found.clusters])


def test_the_range_in_which_the_same_cluster_leads():
    temperatures = (0.01, 0.02, 0.05, 0.1, 0.5)
    found = sweep(HITS, temperatures, priors=False)
    leaders = [found.clusters[number] for number in np.argmax(found.weights, axis=1)]
    assert leaders == [7, 7, 2, 2, 2]
    assert stable_range(found, 0.1) == (0.05, 0.5)
    assert stable_range(found, 0.01) == (0.01, 0.02)
    again = found._replace(weights=found.weights[[0, 2, 0, 2, 2]])
    assert stable_range(again, 0.05) == (0.05, 0.05), "another cluster leads on both sides"
    with pytest.raises(ValueError, match=r"does not hold the temperature 0\.3"):
        stable_range(found, 0.3)


def test_no_hits_or_no_temperature_is_an_error():
    with pytest.raises(ValueError, match="no known question votes"):
        mechanics((), TAU, priors=True)
    with pytest.raises(ValueError, match="temperature is 0; it must be above 0"):
        mechanics(HITS, 0, priors=True)
