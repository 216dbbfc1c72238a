"""Which pairs a removal takes out."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePath

from pydantic import Field

from qaserve.common.errors import NotFoundError, UsageError
from qaserve.common.text import did_you_mean
from qaserve.schemas.pairs import Pair, pairs_of_intent, skill_name
from qaserve.schemas.record import Record

FILTERS = ("topics", "tags", "related_skills", "related_docs", "cluster_id", "pair_id", "question_type", "source_file")


class Selection(Record):
    """What to remove. A pair goes when it meets every kind of condition that is given: any value of each."""

    ids: tuple[str, ...] = Field((), description="A pair_id, with all of its pairs, or the id of a point; any of them.")
    sources: tuple[str, ...] = Field((), description="source_file of the pairs, or its last part; any of them.")
    filters: dict[str, tuple[str, ...]] = Field({}, description="Values by field of FILTERS: any of them in each.")


def select(pairs: Mapping[str, Pair], selection: Selection) -> set[str]:
    """The ids of the points that a selection takes out.

    Raises:
        UsageError: Nothing is selected by, or all pairs are selected.
        NotFoundError: A condition that no pair meets.
    """
    if not (selection.ids or selection.sources or selection.filters):
        raise UsageError("nothing says what to remove", hint="Give --id, --source or --filter.")
    chosen = set(pairs)
    if selection.ids:
        chosen &= _any_of("id", {one: _by_id(pairs, one) for one in selection.ids}, partial(_hint_for_id, pairs))
    if selection.sources:
        found = {one: _by_source(pairs, one) for one in selection.sources}
        chosen &= _any_of("source_file", found, partial(_hint_for_value, pairs, "source_file"))
    for name, values in selection.filters.items():
        found = {value: _by_field(pairs, name, value) for value in values}
        chosen &= _any_of(name, found, partial(_hint_for_value, pairs, name))
    if not chosen:
        raise NotFoundError("no pair meets all of these conditions", hint="Give fewer; --dry-run shows what they meet.")
    if len(chosen) == len(pairs):
        raise UsageError(
            f"this would remove all {len(pairs):,} pairs; a corpus holds at least one",
            hint="`qaserve ingest --replace FILE` puts others in their place.",
        )
    return chosen


def _any_of(name: str, found: Mapping[str, set[str]], hint: Callable[[str], str]) -> set[str]:
    for value, points in found.items():
        if not points:
            said = hint(value) or "Check the spelling."
            raise NotFoundError(f"no pair has the {name} {value!r}", hint=f"{said} Nothing was removed.")
    return set().union(*found.values())


def _hint_for_id(pairs: Mapping[str, Pair], wanted: str) -> str:
    said = pairs_of_intent(pair.pair_id for pair in pairs.values() if pair.intent == wanted)
    return f"{said} --filter cluster_id={wanted} means all." if said else _hint_for_value(pairs, "pair_id", wanted)


def _hint_for_value(pairs: Mapping[str, Pair], name: str, wanted: str) -> str:
    held = (getattr(pair, name) for pair in pairs.values())
    values = (value for one in held for value in (one if isinstance(one, tuple) else (one,)) if value)
    return did_you_mean(wanted, dict.fromkeys(values))


def _by_id(pairs: Mapping[str, Pair], wanted: str) -> set[str]:
    return {point for point, pair in pairs.items() if wanted in {point, pair.pair_id}}


def _by_source(pairs: Mapping[str, Pair], wanted: str) -> set[str]:
    return {point for point, pair in pairs.items() if wanted in {pair.source_file, PurePath(pair.source_file).name}}


def _by_field(pairs: Mapping[str, Pair], name: str, wanted: str) -> set[str]:
    return {point for point, pair in pairs.items() if _holds(name, getattr(pair, name), wanted)}


def _holds(name: str, found: object, wanted: str) -> bool:
    """A skill is meant in any spelling, as when one filters a search."""
    if not isinstance(found, tuple):
        return wanted == found
    return wanted in found or (name == "related_skills" and skill_name(wanted) in map(skill_name, found))
