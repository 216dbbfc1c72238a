"""An export on OpenVINO gives nearly ONNX Runtime's vectors, and says how nearly."""

import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import Silent

from qaserve.common.errors import EncoderError
from qaserve.encoders import openvino
from qaserve.encoders.base import FIXED_TEXTS, lowest_cosine
from qaserve.encoders.onnx import MODEL, OnnxEncoder
from qaserve.encoders.openvino import COMPARED, OpenVinoEncoder
from qaserve.encoders.serving import ServingEncoder
from qaserve.encoders.sources import source_for
from qaserve.settings import EncoderSettings


@pytest.fixture(scope="module")
def folder(exports, tmp_path_factory):
    """A copy of MiniLM's export."""
    return shutil.copytree(exports / "onnx" / "minilm", tmp_path_factory.mktemp("openvino") / "onnx" / "minilm")


def test_its_vectors_are_nearly_those_of_onnx_runtime(folder):
    onnx, found = OnnxEncoder(folder, 8), OpenVinoEncoder(folder, 8, source_for("minilm"))
    cosine = lowest_cosine(onnx, found)
    assert 0.9999 < cosine <= 1.000001
    assert found.identity.backend == "openvino"
    assert found.identity.precision in {"float32", "bfloat16"}
    assert cosine - 1e-4 < found.identity.agreement <= min(1.0, cosine) + 1e-6
    assert found.identity.comparable(onnx.identity)
    assert onnx.identity.comparable(found.identity)
    np.testing.assert_allclose(np.linalg.norm(found.encode_answers(FIXED_TEXTS), axis=1), 1, atol=1e-6)


def test_many_threads_get_the_vectors_that_one_gets(folder):
    encoder, texts = OpenVinoEncoder(folder, 8), [f"How do I make {thing}?" for thing in ("bread", "wine", "steel")]
    alone = [encoder.encode_questions([text])[0] for text in texts]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: encoder.encode_questions([texts[number % 3]])[0], range(60)))
    for number, vector in enumerate(found):
        np.testing.assert_array_equal(vector, alone[number % 3])


def test_the_comparison_is_kept_until_model_or_version_change(folder, monkeypatch):
    made = []
    monkeypatch.setattr(openvino, "lowest_cosine", lambda *_: made.append(1) or 0.99)
    (folder / COMPARED).unlink(missing_ok=True)
    first = OpenVinoEncoder(folder, 8)
    assert not first.identity.comparable(OnnxEncoder(folder, 8).identity), "they do not agree"
    assert OpenVinoEncoder(folder, 8).identity == first.identity
    assert made == [1]
    (folder / COMPARED).write_text((folder / COMPARED).read_text().replace('"version": "', '"version": "0.'))
    OpenVinoEncoder(folder, 8)
    (folder / COMPARED).write_text("{")
    OpenVinoEncoder(folder, 8)
    assert made == [1, 1, 1]
    (folder / COMPARED).unlink()


def test_the_setting_chooses_it(folder):
    settings = EncoderSettings(encoder_backend="openvino")
    encoder = ServingEncoder(settings, folder.parents[1], Silent())
    assert encoder.identity.backend == "openvino"
    assert encoder.encode_questions(["How do I make bread?"]).shape == (1, 384)


def test_without_openvino_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EncoderError, match="OpenVINO is not installed") as missing:
        OpenVinoEncoder(folder, 8)
    assert missing.value.hint == "pip install 'qaserve[openvino]'"


def test_a_model_that_openvino_cannot_open_is_refused(folder, tmp_path, monkeypatch):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / MODEL).write_bytes(b"no model")
    with pytest.raises(EncoderError, match=r"model\.onnx is damaged"):
        OpenVinoEncoder(broken, 8)
    monkeypatch.setattr("qaserve.encoders.onnx._check_files", lambda *_: None)
    with pytest.raises(EncoderError, match=r"OpenVINO cannot open model\.onnx"):
        OpenVinoEncoder(broken, 8)
