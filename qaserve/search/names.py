"""Questions that are names, such as `--file-filter` and `generate_json_reader`, or that name a skill.

An encoder that never saw a name places it anywhere, and every answer is about as far; but the words of a pair either
hold it or not. So a question that is mainly names which few pairs hold is ranked by words. Which names few pairs hold
is asked of the build, so that `TypeScript`, which many do, stays a word like others.

A skill whose name is in the question comes first among the skills.
"""

from collections.abc import Iterable, Mapping, Sequence

from qaserve.store import Build, Search
from qaserve.store.base import EVERYWHERE, WORDS, Where
from qaserve.store.words import Kind, words_by_kind

WEIGHT = 0.9
"""β for such a question; the rest, the meaning, decides between pairs that hold the name."""
RARE = 50
"""At most so many pairs hold a rare name."""


def rare_names(build: Build, question: str, where: Where = EVERYWHERE) -> tuple[str, ...]:
    """The rare names that a question is mainly made of, in order; none where it is not.

    Half of its words, stop words aside, must be rare names as code spells them (`a_b`, `a.b`, `--a`), and the others
    known: "How do I use generate_json_reader?". Compounds that prose has too (`type-safe`, `WebAssembly`) count where
    nothing else is asked. With a filter, some pair that passes must hold each name.
    """
    kinds = dict(words_by_kind(question))
    if set(kinds.values()) <= {Kind.WORD}:
        return ()
    vectors = {word: build.encoder.query_term(word) for word in kinds}
    words = {word: kind for word, kind in kinds.items() if vectors[word].indices}
    names = {word: kind for word, kind in words.items() if kind is not Kind.WORD}
    if 2 * len(names) < max(len(words), 1):
        return ()
    found = build.search([Search(WORDS, vectors[word], RARE + 1) for word in words])
    held = dict(zip(words, map(len, found), strict=True))
    rare = {name: kind for name, kind in names.items() if held[name] <= RARE}
    passing = build.search([Search(WORDS, vectors[name], 1, where) for name in rare if where])
    if not (all(held.values()) and all(passing)):
        return ()
    as_code = sum(kind is Kind.NAME for kind in rare.values())
    return tuple(rare) if len(rare) == len(words) or 2 * as_code >= len(words) else ()


def by_plain_name(skills: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Skills by what people may call them: capitals, `skill_`, `.md` and what stands between words do not matter."""
    found: dict[str, list[str]] = {}
    for name in skills:
        found.setdefault(_plain(name), []).append(name)
    return found


def named_skills(skills: Mapping[str, Sequence[str]], question: str) -> frozenset[str]:
    """The skills that a question names: by a word of several parts, or by nothing else ("theming" is skill_theming).

    Args:
        skills: See `by_plain_name`.
        question: What is asked.
    """
    alone = question.strip(" ?!.,:;`'\"()")
    words = [word for word, _ in words_by_kind(question) if not word.isalnum()]
    said = {_plain(word) for word in (*words, alone) if "/" not in word or " " not in word}
    return frozenset(name for plain in said for name in skills.get(plain, ()))


def _plain(name: str) -> str:
    words = name.lower().rpartition("/")[2].removesuffix(".md").replace("-", " ").replace("_", " ").split()
    return " ".join(words[1:] if words[:1] == ["skill"] else words)
