"""The end of a process, played in this one: an exception that nothing catches, after which nothing is tidied up."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qaserve.common.failpoints import armed
from qaserve.store.edge import EdgeStore
from qaserve.store.edge_writer import EdgeWriter
from qaserve.store.server import ServerStore, ServerWriter


class Died(BaseException):
    """Stands for the end of the process."""


@contextmanager
def dying_at(step: str) -> Iterator[None]:
    """Whatever reaches this step dies there. A dead process discards and deletes nothing."""

    def die(*_: object) -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch:

        def hook(reached: str) -> None:
            if reached == step:
                for owner, name in (
                    (EdgeWriter, "discard"), (ServerWriter, "discard"), (EdgeStore, "delete"), (ServerStore, "delete")
                ):  # fmt: skip
                    patch.setattr(owner, name, die)
                die()

        with armed(hook):
            yield
