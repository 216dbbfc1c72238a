import numpy as np
import pytest

from ingest.documents import split
from qaserve.common.errors import CorpusError
from qaserve.core.splits import phrasing_split
from train.experiments.datasets import Source
from train.experiments.harness import MRR, Report
from train.experiments.skills import (
    BEST,
    DOCUMENTS,
    EXPERIMENT,
    PRODUCT,
    SkillsRun,
    _parts,
    _skills,
    figures,
    run,
    steps,
)
from train.folds import split_fold, unit_rows
from train.tuning import DEFAULTS


def test_figures_are_those_of_the_first_right_skill():
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 0.1, 0.0], [0.2, 0.3, 0.4, -np.inf]])
    right = np.array([[False, False, True, True], [True, False, False, False], [False, False, False, True]])
    found = figures(scores, right)
    np.testing.assert_allclose(found[MRR], [1 / 3, 1, 0])
    np.testing.assert_allclose(found["hit1"], [0, 1, 0])
    np.testing.assert_allclose(found["hit3"], [1, 1, 0])


@pytest.fixture
def source(rows, encoded, write_rows, encoder):
    things = [f"thing{number} part{number % 5}" for number in range(15)]
    texts = {thing: f"# {thing}\n\nHow to make {thing}.\n\n## Steps\n\nHeat {thing}.\n" for thing in [*things, "salt"]}
    sections = tuple(one for thing, text in texts.items() for one in split(f"skill_{thing}.md", text))
    vectors = encoder.encode_answers([section.embedded for section in sections])
    return Source("fake", encoded(write_rows(rows(things))), documents=(sections, vectors))


def test_skills_are_found_by_pairs_and_by_documents(source):
    told = []
    found = run(source, seeds=(0,), quick=True, advance=told.append)
    assert sum(told) == steps((0,), quick=True)
    assert (found.paired, found.unpaired, found.sections) == (15, 1, 32)
    by_name = {one.method: one.metrics for one in found.results}
    assert by_name[PRODUCT]["hit3"] > 0.9
    assert by_name[BEST]["hit3"] > 0.9
    assert by_name[DOCUMENTS]["hit3"] > 0.5
    hidden = [one.hidden_hit3 for one in found.stand_ins]
    assert hidden == sorted(hidden)
    report = Report[SkillsRun](runs=(found,))
    assert Report[SkillsRun].model_validate_json(report.model_dump_json()) == report
    assert all(len(row) == len(table.columns) for table in EXPERIMENT.tables(report) for row in table.rows)
    assert "by documents alone MRR is" in EXPERIMENT.findings(report)[1]


def test_a_build_without_documents_is_told_so(source):
    with pytest.raises(CorpusError, match="there are none"):
        run(source._replace(documents=None), seeds=(0,), quick=True, advance=lambda _: None)


def test_pairs_and_sections_are_compared_with_the_question_that_is_searched(source):
    """As the engine does: the projected and whitened one."""
    skills, split = _skills(source.examples.pairs, *source.documents), phrasing_split(source.examples.pairs, 0)
    fold = split_fold(source.examples, split, 0)
    parts = _parts(fold, DEFAULTS, skills)
    searched = unit_rows(fold.project(DEFAULTS).searched)
    np.testing.assert_allclose(parts.scores, fold.scores(searched, DEFAULTS.search), atol=1e-12)
    np.testing.assert_allclose(parts.projected, skills.best_sections(searched), atol=1e-12)
    assert not np.allclose(searched, unit_rows(fold.project(DEFAULTS).vectors), atol=1e-3)
