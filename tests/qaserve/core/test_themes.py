import numpy as np

from qaserve.core.themes import themes


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_the_row_with_most_neighbors_is_the_middle_of_the_largest_theme():
    vectors = at(0, 30, 60, 200, 215, 120)
    assert themes(vectors, np.cos(np.radians(35))) == [[1, 0, 2], [3, 4], [5]]


def test_every_row_is_in_one_theme(rng):
    vectors = rng.normal(size=(60, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = themes(vectors, 0.5)
    assert sorted(row for rows in found for row in rows) == list(range(60))
    for middle, *others in found:
        assert all(vectors[middle] @ vectors[row] >= 0.5 for row in others)
    assert [len(rows) for rows in found] == sorted((len(rows) for rows in found), reverse=True)


def test_more_neighbors_count_more_than_nearer_ones():
    assert themes(at(0, 1, 2, 150, 85, 95, 215), 0.3)[0] == [3, 4, 5, 6]


def test_the_middle_is_chosen_by_neighbors_and_then_by_how_near_they_are(rng):
    """One theme after the other, from the definition; in two dimensions many rows have equally many neighbors."""
    vectors = at(*rng.uniform(0, 360, 40))
    cosines, left, expected = vectors @ vectors.T, list(range(40)), []
    while left:
        near = {row: [one for one in left if cosines[row, one] >= 0.9] for row in left}
        middle = max(left, key=lambda row: (len(near[row]), round(cosines[row, near[row]].sum(), 12)))
        expected.append([middle, *(one for one in near[middle] if one != middle)])
        left = [one for one in left if one not in near[middle]]
    assert themes(vectors, 0.9) == expected


def test_as_near_as_the_threshold_is_near_enough():
    assert themes(np.eye(3)[[0, 1, 0, 2]], 1.0) == [[0, 2], [1], [3]]


def test_of_nothing_there_are_no_themes():
    assert themes(np.empty((0, 4)), 0.5) == []


def test_a_zero_vector_is_a_theme_of_its_own():
    assert themes(np.zeros((2, 4)), 0.5) == [[0], [1]]
