import pytest

from qaserve.common.errors import StoreWriteError
from qaserve.common.files import written_beside


def test_a_file_takes_its_name_when_all_went_well(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    with written_beside(path) as fresh:
        fresh.write_bytes(b"whole")
        assert fresh.parent.parent == path.parent  # the same disk, so that the change of name is one step
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_was_there_is_replaced(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"the one before, and longer")
    with written_beside(path) as fresh:
        fresh.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_what_fails_half_way_leaves_all_as_it_was(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"the one before")

    def fail():
        with written_beside(path) as fresh:
            fresh.write_bytes(b"half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StoreWriteError, match=r"a\.bin cannot be written: ") as caught,
        written_beside(tmp_path / "file" / "a.bin"),
    ):
        pytest.fail("there is nowhere to write")
    assert caught.value.hint == "Free some space or name a writable folder."
