import numpy as np
import pytest
from store_builds import stored

from ingest.refit import add_student, refit
from qaserve.builds import bundle as bundles
from qaserve.builds.catalog import activate
from qaserve.common.errors import BundleError, CorpusError, NotFoundError, StoreWriteError, UsageError
from qaserve.schemas.ask import AskRequest
from qaserve.schemas.params import Hyperparameters, SearchParams
from qaserve.search.engine import Engine
from qaserve.store import BuildRef
from train.distillation.training import distill
from train.importance.measures import normalized

QUESTION = "Which recipe gives the best bread and cheese?"


@pytest.fixture
def ingested(edge, encoder, make_ingest, write_rows, rows):
    """A live build of `rows()`."""
    return make_ingest(edge, encoder).run([write_rows(rows())])


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def teach(edge, encoder, make_builder, tmp_path):
    def teach(architecture="slots-8", **options):
        return add_student(make_builder(edge, encoder), architecture, tmp_path / "training", **options)

    return teach


def test_a_fit_makes_a_new_build_of_the_same_pairs_and_encodes_nothing(
    store, encoder, make_ingest, make_builder, write_rows, rows
):
    report = make_ingest(store, encoder).run([write_rows(rows())])
    before = {row.stored.id for row in stored(store, BuildRef("things", report.build))}
    encoder.encoded.clear()
    manifest = refit(make_builder(store, encoder, regularization=3.0))
    assert encoder.encoded == []
    assert manifest.build != report.build
    assert manifest.hyperparameters.regularization == 3.0
    assert store.live("things").build == manifest.build
    assert {row.stored.id for row in stored(store, BuildRef("things", manifest.build))} == before
    assert report.build in {info.build for info in store.builds("things")}, "the earlier build stays"


def test_a_fit_and_a_student_need_a_live_build(edge, encoder, make_builder, teach):
    with pytest.raises(NotFoundError, match="no corpus 'things'"):
        refit(make_builder(edge, encoder))
    with pytest.raises(NotFoundError, match="no corpus 'things'"):
        teach()


def test_an_interrupted_fit_leaves_the_live_build(edge, encoder, make_builder, ingested, monkeypatch):
    def crash(*_, **__):
        raise StoreWriteError("full")

    monkeypatch.setattr(bundles, "write", crash)
    with pytest.raises(StoreWriteError, match="full"):
        refit(make_builder(edge, encoder, regularization=3.0))
    assert edge.live("things").build == ingested.build
    assert [info.build for info in edge.builds("things")] == [ingested.build]


def priors_of(store):
    return {row.stored.id: row.stored.prior for row in stored(store, store.live("things"))}


def test_an_importance_becomes_the_prior_and_can_be_taken_back(
    edge, encoder, make_builder, make_ingest, ingested, write_rows, rows, models
):
    manifest = refit(make_builder(edge, encoder), "entropy")
    weighed = priors_of(edge)
    assert manifest.prior == "entropy"
    assert np.mean(list(weighed.values())) == pytest.approx(1)
    assert len(set(weighed.values())) > 1
    result = Engine(edge, encoder, models, "things").ask(AskRequest(question=QUESTION))
    assert {hit.id: hit.prior for hit in result.explained.hits} == {
        hit.id: weighed[hit.id] for hit in result.explained.hits
    }
    refit(make_builder(edge, encoder))
    assert priors_of(edge) == weighed, "a plain fit keeps them"
    later = make_ingest(edge, encoder).run([write_rows(rows(["amber"]), "more.jsonl")])
    assert bundles.read(models, BuildRef("things", later.build)).manifest.prior == "entropy"
    kept = priors_of(edge)
    assert {point: kept[point] for point in weighed} == weighed
    assert {kept[point] for point in kept.keys() - weighed.keys()} == {1.0}, "new pairs weigh 1"
    assert refit(make_builder(edge, encoder), "uniform").prior == "uniform"
    assert set(priors_of(edge).values()) == {1.0}


def test_an_unknown_importance_changes_nothing(edge, encoder, make_builder, ingested, teach):
    with pytest.raises(UsageError, match="importance 'luck' is not known"):
        refit(make_builder(edge, encoder), "luck")
    with pytest.raises(UsageError, match="importance 'luck' is not known"):
        teach(weighing="luck")
    with pytest.raises(UsageError, match="no encoder to read them"):
        refit(make_builder(edge, encoder), "norm")
    assert edge.live("things").build == ingested.build


def test_a_student_answers_beside_the_projection_it_learned_from(edge, encoder, ingested, teach, models):
    report = teach()
    assert edge.live("things").build == report.build != ingested.build
    engine = Engine(edge, encoder, models, "things")
    taught = engine.ask(AskRequest(question=QUESTION, projection="student", lexical_weight=0.0, whitening=0.0))
    voted = engine.ask(AskRequest(question=QUESTION, lexical_weight=0.0))
    live = engine.load()
    query = encoder.encode_questions([QUESTION])[0].astype(float)
    moved = live.student.project(query)
    rows = {row.stored.id: row.answer for row in stored(edge, BuildRef("things", report.build))}
    for answer in taught.answers:
        assert answer.score == pytest.approx(moved @ rows[answer.id] / np.linalg.norm(moved), abs=1e-5)
    assert taught.trace.params.projection == "student"
    assert taught.trace.projected_similarity != voted.trace.projected_similarity
    first = bundles.read(models, BuildRef("things", ingested.build))
    np.testing.assert_array_equal(live.bundle.model.bank.basis, first.model.bank.basis)
    assert report.student.spec.slots == 8
    assert not list(models.parent.glob("training/*/*")), "the state of the training is gone"


def test_a_student_is_taught_what_the_build_answers_and_as_its_pairs_weigh(
    edge, encoder, make_builder, make_ingest, write_rows, rows, teach, models, rng, monkeypatch
):
    """The teacher and the weights that reach `distill`, by hand: τ, N, τ' and priors are not the defaults.

    A share of the projection and whitening are applied to what a student says when it is asked: it is not taught them.
    """
    search = SearchParams(
        routing="question2", temperature=0.2, final_temperature=0.3, hits=7, projection_share=0.5, whitening=0.5
    )
    monkeypatch.setattr("train.tuning.DEFAULTS", Hyperparameters(search=search))
    make_ingest(edge, encoder).run([write_rows(rows())])
    refit(make_builder(edge, encoder), "entropy")
    given = {}

    def watched(questions, teacher, *rest, **options):
        given.update(options, questions=questions, teacher=teacher)
        return distill(questions, teacher, *rest, **options)

    monkeypatch.setattr("ingest.refit.distill", watched)
    teach(weighing="fisher-expected")
    live = edge.live("things")
    points, bank = stored(edge, live), bundles.read(models, live).model.bank
    labels, priors = np.array([p.stored.cluster for p in points]), np.array([p.stored.prior for p in points])
    assert priors.std() > 0.01
    questions = np.stack([point.question for point in points]).astype(float)
    np.testing.assert_array_equal(given["questions"], questions)
    asked = rng.normal(size=(5, questions.shape[1]))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    for row, moved in zip(asked, given["teacher"](asked), strict=True):
        nearest = np.argsort(-(questions @ row))[:7]
        powers = priors[nearest] * np.exp(questions[nearest] @ row / 0.2)
        votes = np.array([powers[labels[nearest] == k].sum() / powers.sum() for k in range(len(bank))])
        weights = np.exp(votes / 0.3) / np.exp(votes / 0.3).sum()
        expected = sum(weight * (row @ bank[k].dense()) for k, weight in enumerate(weights))
        np.testing.assert_allclose(moved, expected, atol=1e-6)
    entropies, uncertain = [], []
    for number, row in enumerate(questions):
        cosines = questions @ row
        cosines[number] = -np.inf
        nearest = np.argsort(-cosines)[:7]
        powers = np.exp(cosines[nearest] / 0.2)
        votes = np.array([powers[labels[nearest] == k].sum() / powers.sum() for k in range(len(bank))])
        uncertain.append(1 - np.square(votes).sum())
        entropies.append(-sum(vote * np.log(vote) for vote in votes if vote > 0))
    np.testing.assert_allclose(priors, normalized(entropies), atol=1e-6)
    np.testing.assert_allclose(given["importance"], normalized(np.maximum(uncertain, 0)), atol=1e-6)


def test_a_build_without_a_student_says_how_to_get_one(edge, encoder, ingested, models):
    with pytest.raises(UsageError, match=f"build {ingested.build} has no student") as refused:
        Engine(edge, encoder, models, "things").ask(AskRequest(question=QUESTION, projection="student"))
    assert "qaserve distill" in refused.value.hint


def test_the_same_training_gives_the_same_build_and_going_back_works(edge, encoder, ingested, teach, models):
    first = teach()
    activate(edge, models, BuildRef("things", ingested.build))
    assert teach().build == first.build
    assert teach("slots-4").build != first.build


def test_auto_tries_every_sufficient_shape_and_keeps_the_smallest_of_the_best(edge, encoder, ingested, teach):
    report = teach("auto")
    clusters = ingested.clusters
    assert {one.name for one in report.candidates} > {"slots 256"}
    assert all(one.capacity >= clusters for one in report.candidates)
    best = max(one.validation_cosine for one in report.candidates)
    kept = next(one for one in report.candidates if one.name == report.student.spec.name)
    assert kept.validation_cosine >= best - 0.002
    sizes = [one.parameters for one in report.candidates]
    assert sizes == sorted(sizes)


def test_an_interrupted_training_goes_on_and_gives_the_same_build(edge, encoder, ingested, teach, models, monkeypatch):
    undisturbed = teach()
    activate(edge, models, BuildRef("things", ingested.build))

    class StoppedError(Exception):
        pass

    epochs = []

    def stopped(*arguments, advance, **options):
        def tell(done):
            epochs.append(done)
            if len(epochs) == 7:
                raise StoppedError

        return distill(*arguments, advance=tell, **options)

    monkeypatch.setattr("ingest.refit.distill", stopped)
    with pytest.raises(StoppedError):
        teach()
    monkeypatch.setattr("ingest.refit.distill", distill)
    assert edge.live("things").build == ingested.build
    assert [info.build for info in edge.builds("things")] == [undisturbed.build, ingested.build]
    kept = list(models.parent.glob("training/things/*/uniform/slots-8/*"))
    assert [file.name for file in kept] == ["distillation.safetensors"], "five epochs were kept"
    assert teach().build == undisturbed.build


@pytest.mark.parametrize("architecture", ["9x9x9", "slots-0", "7x1", "transformer"])
def test_an_unknown_architecture_changes_nothing(edge, ingested, teach, architecture):
    with pytest.raises(UsageError, match=f"architecture '{architecture}'"):
        teach(architecture)
    assert edge.live("things").build == ingested.build


def test_too_few_pairs_have_no_student(edge, encoder, make_ingest, write_rows, rows, teach):
    report = make_ingest(edge, encoder).run([write_rows(rows(["bread"]))])
    with pytest.raises(CorpusError, match="4 questions are too few to train a student"):
        teach()
    assert edge.live("things").build == report.build


def test_a_student_whose_file_is_damaged_is_refused(edge, encoder, teach, ingested, models):
    report = teach()
    file = bundles.folder_of(models, BuildRef("things", report.build)) / bundles.STUDENT
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"student\.safetensors has"):
        Engine(edge, encoder, models, "things").load()


@pytest.mark.parametrize("same", ["answers", "questions", "all"])
@pytest.mark.parametrize("prior", ["entropy", "fisher-empirical", "fisher-expected"])
def test_pairs_that_are_all_alike_are_weighed_and_taught(
    edge, encoder, make_builder, make_ingest, write_rows, rows, models, teach, same, prior
):
    many = rows()
    for row in many:
        row["answer"] = row["answer"] if same == "questions" else "the one answer"
        row["question"] = row["question"] if same == "answers" else "the one question"
    make_ingest(edge, encoder).run([write_rows(many)])
    assert refit(make_builder(edge, encoder), prior).prior == prior
    assert np.mean(list(priors_of(edge).values())) == pytest.approx(1)
    teach(weighing=prior)
    result = Engine(edge, encoder, models, "things").ask(AskRequest(question=QUESTION, projection="student"))
    assert result.answers
    assert np.isfinite(result.answers[0].score)


def test_more_clusters_than_pairs_are_not_made(edge, encoder, make_builder, make_ingest, write_rows, rows):
    report = make_ingest(edge, encoder, max_clusters=100_000).run([write_rows(rows()[:3])])
    manifest = refit(make_builder(edge, encoder, max_clusters=100_000), "entropy")
    assert report.clusters <= 3
    assert len(manifest.clusters) <= 3
