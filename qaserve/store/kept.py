"""What an open build keeps of points that were read: it never changes, and reading takes longer than searching."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Something of each point, by id. Safe to share between threads, which at worst read a point twice."""

    def __init__(self, read: Callable[[list[str]], Iterable[tuple[str, T]]], most: int) -> None:
        """Nothing is kept yet.

        Args:
            read: Gives it for some ids.
            most: All is forgotten once more points than this are kept.
        """
        self._read, self._most = read, most
        self._kept: dict[str, T] = {}

    def of(self, ids: Sequence[str]) -> list[T | None]:
        """Of each of these ids; None where it is not there."""
        kept = self._kept
        if len(kept) > self._most:
            kept = self._kept = {}
        try:
            return list(map(kept.__getitem__, ids))
        except KeyError:
            kept.update(self._read([one for one in ids if one not in kept]))
            return list(map(kept.get, ids))
