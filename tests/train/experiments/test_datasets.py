import numpy as np
import pytest

from qaserve.common.errors import CorpusError, NotFoundError
from qaserve.settings import ReadSettings
from train.experiments.datasets import from_build, from_files

THINGS = [f"thing{number}" for number in range(9)]
COUNT = 36


@pytest.fixture
def corpus(write_rows, rows):
    return write_rows(rows(THINGS))


@pytest.fixture
def save(tmp_path):
    def write(name="fake", **arrays):
        unit = np.tile(np.eye(1, 48), (COUNT, 1))
        np.savez(tmp_path / f"{name}.npz", **({"Q": unit, "A": unit} | arrays))
        return tmp_path / f"{name}.npz"

    return write


def test_files_give_pairs_and_vectors_in_their_order(corpus, save):
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(2, COUNT, 16))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    source = from_files(corpus, save("some", Q=vectors[0].astype(np.float16), A=vectors[1]), ReadSettings())
    assert (source.encoder, source.model) == ("some", None)
    assert [pair.pair_id for pair in source.examples.pairs[:5]] == [
        "thing0_q0",
        "thing0_q1",
        "thing0_q2",
        "thing0_q3",
        "thing1_q0",
    ]
    assert source.examples.questions.dtype == source.examples.answers.dtype == np.float64
    np.testing.assert_allclose(source.examples.questions, vectors[0], atol=1e-3)
    np.testing.assert_array_equal(source.examples.answers, vectors[1])


def test_the_encoder_goes_along_where_it_made_the_vectors(corpus, save, make_encoder):
    own = make_encoder("fake", 48)
    assert from_files(corpus, save("fake"), ReadSettings(), own).model is own
    assert from_files(corpus, save("other"), ReadSettings(), own).model is None
    assert from_files(corpus, save("fake"), ReadSettings(), make_encoder("fake", 32)).model is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Q": np.ones((3, 4)), "A": np.ones((3, 4))}, r"Q \(3, 4\) and A \(3, 4\); .* gives 36 pairs"),
        ({"Q": np.ones(COUNT), "A": np.ones(COUNT)}, r"Q \(36,\) and A \(36,\)"),
        ({"A": np.tile(np.eye(1, 32), (COUNT, 1))}, "Q has 48 dimensions and A 32"),
        ({"A": np.tile(2 * np.eye(1, 48), (COUNT, 1))}, "row 0 of A has length 2, not 1"),
        ({"Q": np.full((COUNT, 48), np.nan)}, "row 0 of Q has length nan, not 1"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(corpus, save, arrays, message):
    with pytest.raises(CorpusError, match=message):
        from_files(corpus, save(**arrays), ReadSettings())


@pytest.mark.parametrize("content", [None, b"", b"no", b"PK\x03\x04 but no zip"])
def test_what_is_no_npz_file_is_refused(corpus, tmp_path, content):
    path = tmp_path / "e.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"e\.npz is not an npz file with arrays Q and A"):
        from_files(corpus, path, ReadSettings())


def test_arrays_of_other_names_are_refused(corpus, tmp_path):
    np.savez(tmp_path / "e.npz", X=np.ones((2, 2)))
    np.save(tmp_path / "e.npy", np.ones((2, 2)))
    for name in ("e.npz", "e.npy"):
        with pytest.raises(CorpusError, match="not an npz file with arrays Q and A"):
            from_files(corpus, tmp_path / name, ReadSettings())


def test_too_few_pairs_are_refused(write_rows, rows, save):
    with pytest.raises(CorpusError, match="24 pairs are too few to split; 30 are needed"):
        from_files(write_rows(rows()), save(), ReadSettings())


def test_a_build_gives_what_is_stored(edge, encoder, make_encoder, make_ingest, corpus):
    make_ingest(edge, encoder).run([corpus])
    source = from_build(edge, "things", encoder)
    assert (source.encoder, len(source.examples)) == (encoder.identity.id, COUNT)
    assert source.model is encoder
    questions = encoder.encode_questions([pair.question for pair in source.examples.pairs])
    np.testing.assert_allclose(source.examples.questions, questions, atol=1e-6)
    assert from_build(edge, "things", make_encoder("other")).model is None
    assert from_build(edge, "things").model is None


def test_a_corpus_that_is_not_there_is_named(edge):
    with pytest.raises(NotFoundError, match="no corpus 'things'"):
        from_build(edge, "things")
