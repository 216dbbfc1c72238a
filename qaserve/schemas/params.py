"""Names and bounds of the parameters of a question and a build."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from qaserve.schemas.record import Record

NAME_RULE = "a name of small letters, digits, - and _, at most 63, that begins with a letter or digit"

RoutingName = Literal["question", "question2", "centroid"]

ProjectionName = Literal["cluster", "pair", "student", "none"]

RankForm = Literal["participation", "entropy"]

EncoderBackend = Literal["onnx", "openvino", "torch"]

DriftMode = Literal["recluster", "recommend"]

CorpusName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/\S*)?$")]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

MAX_TEMPERATURE = 1e3

MIN_TEMPERATURE = 1e-4

MAX_HITS = 10_000

MAX_TOP_K = 100

MAX_ASKED_CHARS = 4_000

MAX_TITLE = 100
"""Characters of what the page calls a corpus."""


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Input should be a number, not a boolean")
    return value


NotBoolean = BeforeValidator(_no_boolean)
"""JSON's true is not 1. It stands after `Field`: before it, the JSON schema would lose the bounds."""

Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE), NotBoolean]

Weight = Annotated[float, Field(ge=0, le=1), NotBoolean]

HitCount = Annotated[int, Field(ge=1, le=MAX_HITS), NotBoolean]

BuildId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]


def _document_as_optional(schema: dict[str, Any]) -> None:
    """In a JSON Schema, a parameter may be left out or null: it then comes from the build."""
    for name in SearchParams.model_fields:
        field = schema["properties"][name]
        field.pop("default", None)
        described = {key: field.pop(key) for key in ("title", "description") if key in field}
        schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **described}


class SearchParams(Record):
    """All parameters of a question.

    One in which only some fields are given overrides those fields of another: a build's parameters are overridden by
    the settings, and these by the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_document_as_optional)

    routing: RoutingName = Field(
        "question", description="Who votes: known questions, the same with a final softmax, or centroids."
    )
    projection: ProjectionName = Field("cluster", description="How the vote moves the question.")
    projection_share: Weight = Field(1.0, description="How far the projection moves the question: 0 not at all.")
    whitening: Weight = Field(
        0.0, description="ω: share of the whitening within intents in the projected question; 0 is off."
    )
    temperature: Temperature = Field(0.05, description="τ of the softmax: small is sharp.")
    final_temperature: Temperature = Field(0.1, description="τ' of the final softmax of question2.")
    hits: HitCount = Field(32, description="N: how many known questions vote.")
    centroids: HitCount = Field(10, description="How many clusters centroid routing blends.")
    lexical_weight: Weight = Field(0.1, description="β: weight of the words (BM25) in a score; 0 is off.")
    topic_weight: Weight = Field(0.0, description="θ: weight of the topic beside the answer in a score; 0 is off.")
    second_share: Weight = Field(0.0, description="σ: share of the second-best pair in the score of an intent.")
    priors: bool = Field(True, description="Whether the priors of known questions count in the vote.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {
            name: value for name, value in data.items() if value is not None or name not in SearchParams.model_fields
        }

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that were given, by name; the others hold defaults."""
        return {name: getattr(self, name) for name in SearchParams.model_fields if name in self.model_fields_set}

    def override(self, *others: "SearchParams") -> "SearchParams":
        """These parameters, with what the others give; the last one wins."""
        merged = {name: getattr(self, name) for name in SearchParams.model_fields}
        for other in others:
            merged |= other.given
        return SearchParams(**merged)


SHORT_NAMES = {
    "tau": "temperature",
    "n": "hits",
    "beta": "lexical_weight",
    "theta": "topic_weight",
    "sigma": "second_share",
}
"""What people may type for a parameter: its letter in the formulas, spelled out."""


def parameter_named(said: str) -> str:
    """The name of what a person typed: short names, capitals and hyphens are understood. It need not exist."""
    name = said.strip().lower().replace("-", "_")
    return SHORT_NAMES.get(name, name)


PLAIN_SEARCH = SearchParams(projection="none", whitening=0.0, lexical_weight=0.0, topic_weight=0.0, second_share=0.0)
"""Ranks by the cosine of the question as it is to the answers; what decides the vote makes no difference."""


class Hyperparameters(Record):
    """Everything that tuning chooses for a build."""

    regularization: float = Field(1.0, gt=0, description="λ: how strongly each W is held to the identity.")
    search: SearchParams = SearchParams()


class Trial(Hyperparameters):
    """Hyperparameters, and how well questions held out of the training side were answered with them."""

    phrasings: float = Field(description="Mean reciprocal rank of the intent, for new phrasings of known intents.")
    intents: float | None = Field(description="The same for intents without a known question; null: too few intents.")

    @property
    def mrr(self) -> float:
        """What is maximised: the mean of both."""
        return self.phrasings if self.intents is None else (self.phrasings + self.intents) / 2


class Tuning(Record):
    """How the hyperparameters of a build were chosen: by cross-validation over its pairs, on two kinds of question."""

    phrasings: int = Field(description="New phrasings asked, all folds together.")
    intents: int = Field(description="Questions asked of intents without a known question, all folds together.")
    plain: Trial = Field(description="Search without projection, with words: the chosen one is not below it.")
    unprojected: Trial = Field(description="The best without projection: what is above it, the projection adds.")
    chosen: Trial
    curve: tuple[Trial, ...] = Field(description="Everything tried, in order.")
