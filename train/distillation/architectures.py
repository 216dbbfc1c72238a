"""Which students there are to train, and which of those trained to keep."""

import re
from collections.abc import Sequence

from pydantic import ValidationError

from qaserve.common.errors import UsageError
from qaserve.core.student import StudentSpec
from train.distillation.training import Distilled

MOST_LAYERS = 4
CLOSE_ENOUGH = 0.002
"""A smaller student whose validation cosine is this close to the best is preferred."""


def architectures(dimension: int, clusters: int) -> list[StudentSpec]:
    """Residual transformers whose capacity H^L is at least the number of clusters, fewest parameters first.

    For 1 to 4 layers the smallest H that divides D and suffices; a number of layers for which none does is left out.

    Args:
        dimension: D.
        clusters: K.
    """
    found = []
    for layers in range(1, MOST_LAYERS + 1):
        heads = (h for h in range(1, dimension + 1) if dimension % h == 0 and h**layers >= clusters)
        chosen = next(heads, None)
        if chosen is not None:
            found.append(StudentSpec(dimension=dimension, heads=chosen, layers=layers))
    return sorted(found, key=lambda spec: spec.parameters)


def choose_architecture(candidates: Sequence[Distilled]) -> Distilled:
    """The student with the fewest parameters whose validation cosine is within 0.002 of the best.

    Raises:
        ValueError: There are no candidates.
    """
    if not candidates:
        raise ValueError("there is no student to choose from")
    best = max(candidate.validation_cosine for candidate in candidates)
    close = [candidate for candidate in candidates if candidate.validation_cosine >= best - CLOSE_ENOUGH]
    return min(close, key=lambda candidate: candidate.spec.parameters)


def parse_architecture(text: str, dimension: int) -> StudentSpec:
    """A spec from its short form: "6x3" and "6x3-residual" (heads × layers), "6x3-plain", "slots-256".

    Raises:
        UsageError: The text has none of these forms, or the heads do not divide D.
    """
    hint = (
        "An architecture is HEADSxLAYERS such as 6x3 or 6x3-plain (heads must divide D), or slots-M such as slots-256."
    )
    heads = re.fullmatch(r"(\d{1,4})x(\d{1,2})(-plain|-residual)?", text.strip())
    slots = re.fullmatch(r"slots-(\d{1,5})", text.strip())
    try:
        if heads:
            h, layers, form = heads.groups()
            return StudentSpec(dimension=dimension, heads=int(h), layers=int(layers), residual=form != "-plain")
        if slots:
            return StudentSpec(dimension=dimension, form="slots", slots=int(slots[1]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
        raise UsageError(f"architecture {text!r} is not possible: {where}", hint=hint) from error
    raise UsageError(f"architecture {text!r} is not known", hint=hint)
