"""Exports give torch's vectors, or are refused; what is wrong with one is said, and mended."""

import json
import logging
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from tiny_models import tiny_model

from qaserve.common.errors import EncoderError, ExportError
from qaserve.encoders import export as exporting
from qaserve.encoders.base import FIXED_TEXTS
from qaserve.encoders.export import export
from qaserve.encoders.onnx import MANIFEST, MODEL, TOKENIZER, WEIGHTS, OnnxEncoder
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.encoders.serving import ServingEncoder
from qaserve.encoders.sources import KNOWN, ModelSource
from qaserve.schemas.builds import EncoderIdentity
from qaserve.settings import EncoderSettings


class Silent:
    @contextmanager
    def stage(self, name, total):
        yield lambda _: None


def nomic_source(folder):
    """A model under the prompts of the proposal's own encoder."""
    nomic = KNOWN["nomic"]
    return ModelSource(
        name="tiny-nomic",
        kind="folder",
        place=str(folder),
        question_prompt=nomic.question_prompt,
        answer_prompt=nomic.answer_prompt,
        max_tokens=16,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny NomicBERT and a tiny MPNet, and an export of each, made once."""
    root = tmp_path_factory.mktemp("exports")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("nomic", "mpnet"):
            model = tiny_model(root / kind, kind)
            name = str(model)
            if kind == "nomic":
                patch.setitem(KNOWN, "tiny-nomic", nomic_source(model))
                name = "tiny-nomic"
            encoder = SentenceEncoder(EncoderSettings(encoder=name), "unused")
            export(encoder, root / f"{kind}-export", 8, lambda _: None)
            made[kind] = (encoder, root / f"{kind}-export")
    return made


@pytest.mark.parametrize("kind", ["nomic", "mpnet"])
def test_an_export_gives_torchs_vectors(folders, kind):
    encoder, folder = folders[kind]
    exported = OnnxEncoder(folder, 4)
    for name in ("encode_questions", "encode_answers"):
        found, expected = getattr(exported, name)(FIXED_TEXTS), getattr(encoder, name)(FIXED_TEXTS)
        assert (found * expected).sum(axis=1).min() >= 0.99999
    assert exported.identity.backend == "onnx"
    assert exported.identity.comparable(encoder.identity)


def test_nomics_questions_and_answers_have_their_own_prompts(folders):
    """The prompt is put before the text by hand, through a model that has none: swapping them in KNOWN fails here."""
    encoder, folder = folders["nomic"]
    plain = SentenceEncoder(EncoderSettings(encoder=encoder.source.place), "unused")
    with plain.borrowed() as loaded:
        loaded.model.max_seq_length = 16
    question = plain.encode_questions(["search_query: how bread"])
    answer = plain.encode_questions(["search_document: how bread"])
    assert (question * answer).sum() < 0.999
    for tried in (encoder, OnnxEncoder(folder, 8)):
        np.testing.assert_allclose(tried.encode_questions(["how bread"]), question, atol=1e-5)
        np.testing.assert_allclose(tried.encode_answers(["how bread"]), answer, atol=1e-5)


def test_a_very_long_text_leaves_the_short_ones_of_its_batch_alone(folders):
    exported = OnnxEncoder(folders["mpnet"][1], 32)
    texts = ["how bread", "bread " * 17_000, *["how"] * 9]
    told = []
    vectors = exported.encode_answers(texts, told.append)
    assert sum(told) == len(texts)
    np.testing.assert_allclose(vectors[0], exported.encode_answers(texts[:1])[0], atol=1e-6)
    assert exported.encode_answers([]).shape == (0, 16)


@pytest.fixture
def copied(folders, tmp_path):
    import shutil

    return shutil.copytree(folders["mpnet"][1], tmp_path / "copied")


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, TOKENIZER])
def test_a_truncated_export_is_refused(copied, name):
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(EncoderError, match=rf"{name} is damaged: its SHA-256 is [0-9a-f]{{64}}") as caught:
        OnnxEncoder(copied, 8)
    assert "qaserve encoder export" in caught.value.hint


def test_the_weights_of_an_export_are_in_a_file_that_can_be_mapped(folders):
    """All of them: what stands in the graph is read into the memory of each process."""
    import onnx

    encoder, folder = folders["mpnet"]
    inside = onnx.load(folder / MODEL, load_external_data=False).graph.initializer
    in_a_file = {one.name for one in inside if one.data_location == onnx.TensorProto.EXTERNAL}
    with encoder.borrowed() as loaded:
        weights = sum(one.nbytes for one in loaded.model.parameters())
    assert sum(len(one.raw_data) for one in inside) < weights / 10
    assert any("embeddings.word_embeddings" in name for name in in_a_file)
    assert (folder / WEIGHTS).stat().st_size > weights / 2


def test_an_export_of_another_model_is_refused(copied):
    source = ModelSource(name="model", kind="folder", place="x", sha256="0" * 64)
    with pytest.raises(EncoderError, match=r"it is of another model: revision is '[0-9a-f]{64}', '0{64}' is needed"):
        OnnxEncoder(copied, 8, source)


def test_an_export_of_a_newer_opset_is_refused(copied):
    import onnx

    from qaserve.encoders.onnx import digest_of

    model = onnx.load(copied / MODEL, load_external_data=False)
    for opset in model.opset_import:
        opset.version = 999
    onnx.save(model, copied / MODEL)
    manifest = json.loads((copied / MANIFEST).read_text())
    manifest |= {"opset": 999, "model_sha256": digest_of(copied / MODEL)}
    (copied / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EncoderError, match=r"ONNX Runtime cannot open model\.onnx \(opset 999\)"):
        OnnxEncoder(copied, 8)


def serving(folder, cache):
    return ServingEncoder(EncoderSettings(encoder=str(folder)), cache, Silent())


def test_a_damaged_export_is_made_again(tmp_path, caplog):
    model, cache = tiny_model(tmp_path, "mpnet"), tmp_path / "cache"
    assert serving(model, cache).identity.backend == "onnx"
    (export_folder,) = [path for path in (cache / "onnx").iterdir() if path.is_dir()]
    (export_folder / MODEL).write_bytes(b"")
    assert serving(model, cache).encode_questions(["how"]).shape == (1, 16)
    assert "It is made again" in caplog.text
    assert OnnxEncoder(export_folder, 8).identity.agreement >= 0.99999
    assert [path.name for path in (cache / "onnx").iterdir() if path.name.startswith(".")] == []


def test_a_model_that_cannot_be_exported_runs_in_torch_and_says_so_once(tmp_path, caplog, monkeypatch):
    model, tried = tiny_model(tmp_path, "mpnet"), []

    def refuse(*_):
        tried.append(1)
        raise ExportError("encoder model cannot be exported to ONNX: no such operator")

    monkeypatch.setattr(exporting, "export", refuse)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # the second is another start of the program
            encoder = serving(model, tmp_path / "cache")
            assert encoder.encode_questions(["how"]).shape == (1, 16)
            assert encoder.identity.backend == "torch"
    assert tried == [1]
    assert caplog.text.count("Encoding with torch instead") == 1


def test_without_permission_to_write_torch_encodes(tmp_path, caplog):
    model, cache = tiny_model(tmp_path, "mpnet"), tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    encoder = serving(model, cache)
    assert encoder.encode_questions(["how"]).shape == (1, 16)
    assert "cannot be written" in caplog.text


def test_an_export_whose_vectors_differ_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    model = tiny_model(tmp_path, "mpnet")
    monkeypatch.setattr(exporting, "lowest_cosine", lambda *_: 0.9)
    encoder = SentenceEncoder(EncoderSettings(encoder=str(model)), "unused")
    with pytest.raises(ExportError, match=r"is refused: the lowest cosine to torch's vectors is 0\.900000"):
        export(encoder, tmp_path / "out" / "x", 8, lambda _: None)
    assert list((tmp_path / "out").iterdir()) == []


def test_backends_are_comparable_where_they_agree():
    torch = EncoderIdentity(id="m", revision="1", dimension=4)
    near = torch.model_copy(update={"backend": "onnx", "agreement": 0.99999})
    far = near.model_copy(update={"agreement": 0.999})
    assert torch.comparable(near)
    assert near.comparable(torch)
    assert not torch.comparable(far)
    assert not near.comparable(near.model_copy(update={"revision": "2"}))
    assert EncoderIdentity.model_validate({"id": "m", "revision": "1", "dimension": 4}) == torch  # as 0.1 wrote it


def test_an_open_export_needs_no_torch(folders):
    code = """
import sys
from pathlib import Path
from qaserve.encoders.onnx import OnnxEncoder
OnnxEncoder(Path(sys.argv[1]), 8).encode_questions(["how bread"])
heavy = {"torch", "transformers", "sentence_transformers", "scipy", "sklearn"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folders["mpnet"][1])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
