import inspect
import re

import pytest

from qaserve.common import errors
from qaserve.common.errors import TABLE, ErrorKind, QaserveError, UsageError

OURS = ("qaserve", "ingest", "train", "ui")


def tree(root=QaserveError):
    """The class and all below it, without what tests make."""
    found = [root]
    for child in root.__subclasses__():
        if child.__module__.split(".")[0] in OURS:
            found += tree(child)
    return found


CLASSES = tree()


def drawn():
    """The tree in the module's docstring: the parent of every class by name."""
    parents, path = {}, {}
    for text in inspect.getdoc(errors).splitlines():
        match = re.match(r"[│├└─ ]*(?=[A-Z]\w+Error\b)", text)
        if match:
            depth = len(match.group()) // 4
            path[depth] = re.match(r"\w+", text[match.end() :]).group()
            parents[path[depth]] = path[depth - 1] if depth else None
    return parents


def test_the_table_holds_every_class_and_no_other():
    assert set(TABLE) == set(CLASSES)
    assert len(CLASSES) == len(set(CLASSES)) > 10


def test_the_docstring_draws_every_class_below_its_parent():
    real = {cls.__name__: None if cls is QaserveError else cls.__bases__[0].__name__ for cls in CLASSES}
    assert drawn() == real


def test_every_class_is_defined_in_the_one_room_and_says_what_it_means():
    for cls in CLASSES:
        assert cls.__module__ == "qaserve.common.errors"
        assert cls.__dict__.get("__doc__")


def test_every_class_has_one_parent():
    assert [cls.__name__ for cls in CLASSES if len(cls.__bases__) != 1] == []


def test_codes_are_unique_and_fit_for_programs():
    codes = [kind.code for kind in TABLE.values()]
    assert len(set(codes)) == len(codes)
    assert [code for code in codes if not re.fullmatch(r"[a-z]+(_[a-z]+)*", code)] == []


@pytest.mark.parametrize("cls", CLASSES)
def test_wrong_use_exits_with_2_and_failure_with_1(cls):
    assert TABLE[cls].exit_code == (2 if issubclass(cls, UsageError) else 1)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_status_is_an_error(cls):
    assert 400 <= TABLE[cls].status <= 599


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_knows_its_message_its_hint_and_its_kind(cls):
    error = cls("it broke", hint="mend it")
    assert (str(error), error.message, error.hint) == ("it broke", "it broke", "mend it")
    assert isinstance(error.kind, ErrorKind)
    assert error.kind is TABLE[cls]


def test_a_hint_may_be_missing():
    assert QaserveError("it broke").hint == ""


def test_an_unlisted_class_has_no_kind():
    class UnlistedError(QaserveError):
        pass

    with pytest.raises(KeyError, match="UnlistedError"):
        _ = UnlistedError("x").kind
