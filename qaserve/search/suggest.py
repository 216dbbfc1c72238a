"""Known questions that a text being typed may become."""

import heapq

from qaserve.common.text import fold
from qaserve.schemas.explore import Suggestions
from qaserve.search.build import OpenBuild

LEAST_CHARS = 2
"""Of a text that anything is suggested for."""


def suggest(build: OpenBuild, typed: str, limit: int) -> Suggestions:
    """Known questions that hold a text, without regard to case, spacing and punctuation.

    Args:
        build: Whose questions.
        typed: What has been typed so far.
        limit: Most questions.

    Returns:
        Those that begin with the text first, then those with a word that does, then the others; the shorter first.
    """
    text = fold(typed)
    if len(text) < LEAST_CHARS:
        return Suggestions(build=build.ref.build, questions=())
    places = ((question, folded, folded.find(text)) for question, folded in build.known_questions.items())
    ranked = (
        (0 if place == 0 else 1 if f" {text}" in folded else 2, len(question), question)
        for question, folded, place in places
        if place >= 0
    )
    return Suggestions(
        build=build.ref.build, questions=tuple(question for _, _, question in heapq.nsmallest(limit, ranked))
    )
