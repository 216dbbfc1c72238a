"""Asking: a question, its answers, and why."""

from typing import Annotated, Any, Literal

from pydantic import Field

from qaserve.schemas.documents import SkillHit
from qaserve.schemas.pairs import AuthorNote
from qaserve.schemas.params import MAX_TOP_K, NotBoolean, SearchParams
from qaserve.schemas.record import Record

FilterValue = Annotated[str, Field(max_length=300)]

FilterValues = Annotated[tuple[FilterValue, ...], Field(max_length=64)]


ClusterNumber = Annotated[int, Field(ge=0, lt=2**31), NotBoolean]


class Filters(Record):
    """Which pairs may vote and be found: those with one of the values, in every field that is given."""

    topics: FilterValues = ()
    tags: FilterValues = ()
    related_skills: FilterValues = ()
    source_file: FilterValues = ()
    cluster: Annotated[tuple[ClusterNumber, ...], Field(max_length=64)] = Field((), description="The model's clusters.")

    def __bool__(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.given)

    @property
    def given(self) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
        """The values by field, without the fields that hold none."""
        return {name: values for name in type(self).model_fields if (values := getattr(self, name))}


class AskRequest(SearchParams):
    """A question and how to answer it. Parameters that are not given come from the settings, or else the build."""

    question: str = Field(examples=["How do I add a new pair?"])
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K), NotBoolean] = 5
    filters: Filters = Filters()
    explain: bool = Field(
        True, description="False leaves out why: the trace, with its plain search, and the ranks there."
    )

    def to_json(self) -> dict[str, Any]:
        """As it is sent: what was given alone, so that everything else comes from the settings, or else the build."""
        return self.model_dump(mode="json", exclude_unset=True)


class Hit(Record):
    """A known question that voted."""

    id: str
    pair_id: str
    question: str
    similarity: float = Field(description="Cosine to the asked question.")
    prior: float
    probability: float = Field(description="Its share of the vote; the shares of all hits sum to 1.")
    cluster: int


class ClusterVote(Record):
    """What a cluster weighs in the projection."""

    cluster: int
    name: str
    weight: float = Field(description="Weight of its W; the weights of all clusters sum to 1.")
    hits: int = Field(description="How many of the hits are in it.")
    vote: float | None = Field(
        description="Sum of its hits' probabilities; equals weight unless a final softmax follows."
    )
    similarity: float | None = Field(description="Cosine to its mean question, with centroid routing.")
    angle: float | None = Field(
        None, description="Degrees by which its W turns the question; null unless W of clusters project it."
    )
    rank: float | None = Field(
        None, description="Effective rank of W - I: exp of the entropy of its singular values; null as `angle` is."
    )


class ScoreParts(Record):
    """What the score of a pair is made of: it is their sum."""

    projected: float = Field(
        description="(1 - β) (1 - θ) · cosine of the projected and whitened question to the answer; without θ where "
        "the pair has no topic."
    )
    topic: float = Field(0.0, description="(1 - β) θ · cosine of the question to the topic; 0 where there is none.")
    lexical: float = Field(
        description="β · BM25 of the pair over the best, times the best score without words: the words in common."
    )


class RawAnswer(Record):
    """An answer that a plain search finds: by the cosine of the question as it is, without projection and words."""

    rank: int
    pair_id: str
    cluster_id: str
    question: str
    similarity: float = Field(description="Cosine of the question, not projected, to the answer.")


KEPT_OUT = {
    "filter": "it does not match the filters",
    "similarity": "a similar known question voted for it, but its answer is farther away than those shown",
    "routing": "the projection moved the question away from it",
    "words": "it is as near, but shares fewer words or topics with the question",
}


class Excluded(Record):
    """An answer that one might have expected, and what kept it out."""

    id: str
    pair_id: str
    cluster_id: str
    question: str
    raw_similarity: float = Field(description="Cosine of the question, not projected, to the answer.")
    projected_similarity: float = Field(description="Cosine of the projected question to the answer.")
    similarity: float = Field(description="Cosine of the projected and whitened question to the answer, as ranked.")
    by: Literal["filter", "similarity", "routing", "words"] = Field(
        description="filter: the pair does not match it. similarity: a similar known question voted, but its answer is "
        "farther than those that came back. routing: near in a plain search, and the vote turned the question away. "
        "words: as near as those that came back, with fewer words in common."
    )

    @property
    def reason(self) -> str:
        """What kept it out, as the end of a sentence."""
        return KEPT_OUT[self.by]


class Link(Record):
    """A name in `related_skills` or `related_docs`, and where it leads."""

    name: str
    path: str | None = Field(description="Of a document of the build; null: it is missing.")


class Answer(Record):
    """An answer that came back, best pair of its intent."""

    rank: int
    score: float = Field(
        description="Of the intent: (1 - σ) · sum of the parts + σ · `second`; the sum alone where `second` is null."
    )
    parts: ScoreParts
    second: float | None = Field(
        None,
        description="Score of the intent's second-best pair; null: it has one pair, σ is 0, or this pair stands for it "
        "because it asks the very question, not because of its score.",
    )
    known: bool = Field(
        False,
        description="Whether its pair asks this very question, but for case, spacing and punctuation. Such answers "
        "come first, whatever their score.",
    )
    words: tuple[str, ...] = Field(
        description="Words of the question that the pair holds, those that count most first."
    )
    similarity: float = Field(
        description="Cosine of the projected and whitened question to the answer; the score is made of it."
    )
    projected_similarity: float = Field(description="Cosine of the projected question to the answer.")
    raw_similarity: float = Field(description="Cosine of the question, not projected, to the answer.")
    raw_rank: int | None = Field(description="Rank of its intent in a plain search; null: beyond what was looked at.")
    id: str
    pair_id: str
    cluster_id: str
    cluster: int
    question: str
    answer: str
    related_skills: tuple[str, ...]
    related_docs: tuple[str, ...]
    topics: tuple[str, ...]
    tags: tuple[str, ...]
    source_file: str
    author: AuthorNote | None = Field(None, description="Null: the pair says nothing of the kind.")
    links: tuple[Link, ...] = Field(
        (), description="Where related_skills and related_docs lead; none where the build has no documents."
    )


class Timings(Record):
    """Milliseconds spent."""

    encode: float
    route: float
    """Until the voters are found and, where a trace is asked for, the answers of a plain search."""
    project: float
    search: float
    total: float


class Trace(Record):
    """Why the answers are what they are: enough to compute them again from the build."""

    params: SearchParams = Field(description="What the question was answered with, resolved.")
    names: tuple[str, ...] = Field(
        (), description="Names that few pairs hold and that the question is mainly made of; words then weigh more."
    )
    entropy: float = Field(
        description="Entropy of the cluster weights in nats, over log K: 0 one cluster, 1 all alike."
    )
    hits: tuple[Hit, ...]
    clusters: tuple[ClusterVote, ...]
    projected_similarity: float = Field(description="Cosine between the question before and after projection.")
    whitened_similarity: float = Field(description="Cosine between the projected question before and after whitening.")
    filters: Filters = Field(description="What was searched; the plain search too.")
    raw_answers: tuple[RawAnswer, ...] = Field(description="What comes first in a plain search.")
    excluded: tuple[Excluded, ...] = Field(
        description="What comes first in a plain search of everything, or voted most, and did not come back."
    )


class Confidence(Record):
    """How sure the engine is of the first answer."""

    value: float | None = Field(
        description="Probability that the first answer is right; null where the build has no calibration for the "
        "options asked with, and where the question is known: it is calibrated on questions that are not."
    )
    skill: float | None = Field(
        None,
        description="Probability that the first answer names the right skill, at least `value`; null where `value` is, "
        "and where the answer names no skill.",
    )
    known: bool = Field(
        False,
        description="Whether the question is a known one but for case, spacing and punctuation; then `abstained` is "
        "false.",
    )
    abstained: bool = Field(description="Whether it is more likely that nothing here answers the question.")
    reason: str

    @property
    def statement(self) -> str:
        """What is known of the first answer, in words; empty without calibration for a question that is not known.

        A known question has no percentages: they are calibrated on questions that are not known.
        """
        if self.known:
            return "Matches a known question."
        said = []
        if self.skill is not None:
            said.append(f"The right skill: {self.skill:.0%}.")
        if self.value is not None:
            said.append(f"This very answer: {self.value:.0%}.")
        return " ".join(said)


class AskResult(Record):
    """Answers and why."""

    question: str
    build: str
    answers: tuple[Answer, ...]
    skills: tuple[SkillHit, ...] = Field((), description="The skills for the question, best first; at most top_k.")
    confidence: Confidence
    trace: Trace | None = Field(None, description="Null unless `explain` was asked for.")
    timings_ms: Timings

    @property
    def ahead_of_known(self) -> int:
        """How many answers score more than the first, which comes first because its pair asks the very question."""
        return sum(one.score > self.answers[0].score for one in self.answers if not one.known)

    @property
    def explained(self) -> Trace:
        """The trace of a question that was asked with `explain`. Raises ValueError where there is none."""
        if self.trace is None:
            raise ValueError("there is no trace: the question was asked without `explain`")
        return self.trace
