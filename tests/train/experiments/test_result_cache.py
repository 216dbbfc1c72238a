import numpy as np
import pytest

from qaserve.common.errors import StoreWriteError
from train.experiments.result_cache import ResultCache

KEY = ("minilm", "seed 0")
ARRAYS = {"rows": np.arange(6, dtype=np.float32).reshape(2, 3), "turned": np.arange(6.0).reshape(2, 3).T}


def test_a_part_is_found_by_all_that_it_depends_on(tmp_path):
    kept = ResultCache(tmp_path / "parts")
    assert kept.load(KEY) is None
    kept.save(KEY, ARRAYS, {"note": "tuned"}, seconds=1800.5)
    later = ResultCache(tmp_path / "parts")
    assert later.load(("minilm", "seed 1")) is None
    assert later.load(("minilmseed 0",)) is None
    assert later.spared_seconds == 0
    arrays, words = later.load(KEY)
    assert words == {"note": "tuned"}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert (later.spared_seconds, kept.spared_seconds) == (1800.5, 0)


@pytest.mark.parametrize("torn", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"no tensors at all"])
def test_a_part_that_cannot_be_read_is_made_anew(tmp_path, torn):
    ResultCache(tmp_path).save(KEY, ARRAYS, {}, seconds=1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(torn)
    kept = ResultCache(tmp_path)
    assert kept.load(KEY) is None
    kept.save(KEY, ARRAYS, {}, seconds=1)
    assert ResultCache(tmp_path).load(KEY) is not None


def test_clearing_deletes_what_this_run_used_and_nothing_else(tmp_path):
    folder = tmp_path / "parts"
    ResultCache(folder).save(("other",), ARRAYS, {}, seconds=1)
    ResultCache(folder).save(KEY, ARRAYS, {}, seconds=1)
    kept = ResultCache(folder)
    kept.load(KEY)
    kept.save(("new",), ARRAYS, {}, seconds=1)
    kept.clear()
    assert ResultCache(folder).load(KEY) is None
    assert ResultCache(folder).load(("new",)) is None
    last = ResultCache(folder)
    assert last.load(("other",)) is not None
    last.clear()
    assert not folder.exists()
    ResultCache(folder).clear()


def test_what_cannot_be_kept_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "parts").write_text("a file where a folder should be")
    with pytest.raises(StoreWriteError, match="parts"):
        ResultCache(tmp_path / "parts").save(KEY, ARRAYS, {}, seconds=1)
