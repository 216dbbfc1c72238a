"""Names and bounds of the parameters of a question and a build."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from qaserve.schemas.record import Record

NAME_RULE = "a name of small letters, digits, - and _, at most 63, that begins with a letter or digit"

RoutingName = Literal["question", "question2", "centroid"]

ProjectionName = Literal["cluster", "pair", "student", "none"]

RankForm = Literal["participation", "entropy"]

DriftMode = Literal["recluster", "recommend"]

CorpusName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/\S*)?$")]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

MAX_TEMPERATURE = 1e3

MIN_TEMPERATURE = 1e-4

MAX_HITS = 10_000

MAX_TOP_K = 100

MAX_ASKED_CHARS = 4_000

Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]

Weight = Annotated[float, Field(ge=0, le=1)]

HitCount = Annotated[int, Field(ge=1, le=MAX_HITS)]

BuildId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]


class Defaults(Record):
    """How a question is answered when neither it nor the settings say."""

    routing: RoutingName = "question"
    projection: ProjectionName = "cluster"
    temperature: Temperature = 0.05
    final_temperature: Temperature = 0.1
    hits: HitCount = 32
    centroids: HitCount = 10
    lexical_weight: Weight = 0.1
