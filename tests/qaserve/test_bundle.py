import hashlib
import json

import numpy as np
import pytest

from qaserve import bundle as bundles
from qaserve.bundle import Defaults, Manifest, Model
from qaserve.errors import BundleError, StoreWriteError
from qaserve.projection import Bank
from qaserve.records import ClusterInfo, EncoderIdentity
from train.procrustes import anchored

D, K, BUILD = 6, 3, "0123456789ab"


@pytest.fixture
def written(tmp_path, rng):
    rows = rng.normal(size=(2, K, 4, D))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    bank = Bank.pack([anchored(s, t, 1.0) for s, t in zip(*rows, strict=True)], D)
    means = rng.normal(size=(K, D)).astype(np.float32)
    model = Model(bank, means, -means)
    tensors = bundles.pack(model)
    manifest = Manifest(
        build=BUILD,
        corpus="things",
        corpus_hash="0" * 64,
        encoder=EncoderIdentity(id="fake", revision="1", dimension=D),
        pairs=12,
        anchor=1.0,
        rank_form="participation",
        max_clusters=9,
        seed=0,
        effective_rank=3.1,
        defaults=Defaults(),
        clusters=[ClusterInfo(cluster=k, name=f"c{k}", terms=(), skills=(), size=4) for k in range(K)],
        files={bundles.TENSORS: bundles.entry_for(tensors)},
    )
    bundles.write(tmp_path, manifest, tensors)
    return tmp_path, manifest, model, tensors


def test_a_bundle_comes_back_as_it_was_written(written):
    folder, manifest, model, _ = written
    found = bundles.read(folder, "things", BUILD)
    assert found.manifest == manifest
    np.testing.assert_array_equal(found.model.bank.basis, model.bank.basis)
    np.testing.assert_array_equal(found.model.mean_answers, model.mean_answers)


def test_only_json_and_safetensors_are_written_and_no_scratch_is_left(written):
    folder = written[0] / "things"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
        BUILD,
        f"{BUILD}/manifest.json",
        f"{BUILD}/model.safetensors",
    ]


def test_writing_again_gives_the_same_bytes(written):
    folder, manifest, _, tensors = written
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    bundles.write(folder, manifest, tensors)
    assert {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize("name", [bundles.MANIFEST, bundles.TENSORS])
def test_a_missing_file_is_named(written, name):
    folder = written[0]
    (folder / "things" / BUILD / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        bundles.read(folder, "things", BUILD)


def test_a_truncated_file_is_told_with_both_sizes(written):
    folder, _, _, tensors = written
    (folder / "things" / BUILD / bundles.TENSORS).write_bytes(tensors[:-10])
    with pytest.raises(BundleError, match=rf"has {len(tensors) - 10} bytes .* says {len(tensors)}"):
        bundles.read(folder, "things", BUILD)


def test_every_single_flipped_bit_is_noticed(written, rng):
    folder, _, _, tensors = written
    path = folder / "things" / BUILD / bundles.TENSORS
    for position in rng.integers(0, len(tensors), 25):
        broken = bytearray(tensors)
        broken[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with pytest.raises(BundleError, match=r"SHA-256"):
            bundles.read(folder, "things", BUILD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"build": "nothexnothex"}, "build: String should match"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"build": "ffffffffffff"}, "says ffffffffffff of things"),
        ({"files": {"../../secret": {"sha256": "", "size": 0}}}, "files"),
    ],
)
def test_a_manifest_that_lies_is_refused(written, change, message):
    folder = written[0]
    path = folder / "things" / BUILD / bundles.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        bundles.read(folder, "things", BUILD)


def test_a_manifest_that_is_no_json_is_refused(written):
    folder = written[0]
    (folder / "things" / BUILD / bundles.MANIFEST).write_text('{"format": 1, "bui')
    with pytest.raises(BundleError, match=r"manifest\.json is not valid"):
        bundles.read(folder, "things", BUILD)


def test_tensors_of_other_shapes_are_refused_with_both(written):
    folder, manifest, model, _ = written
    other = bundles.pack(Model(model.bank, model.mean_questions[:2], model.mean_answers))
    lying = manifest.model_copy(update={"files": {bundles.TENSORS: bundles.entry_for(other)}})
    bundles.write(folder, lying, other)
    with pytest.raises(BundleError, match=rf"mean_questions is \(2, {D}\).*K, D = \({K}, {D}\)"):
        bundles.read(folder, "things", BUILD)


def test_bytes_that_are_no_tensors_are_refused(written):
    folder, manifest, _, _ = written
    junk = b"not safetensors"
    lying = manifest.model_copy(update={"files": {bundles.TENSORS: bundles.entry_for(junk)}})
    bundles.write(folder, lying, junk)
    with pytest.raises(BundleError, match="is not usable"):
        bundles.read(folder, "things", BUILD)


def test_a_place_that_cannot_be_written_leaves_nothing(written, tmp_path):
    _, manifest, _, tensors = written
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="the bundle cannot be written to"):
        bundles.write(tmp_path / "file", manifest, tensors)


def test_removing_and_what_an_interrupted_write_left(written):
    folder = written[0]
    leftover = folder / "things" / f".{BUILD}-dead"
    leftover.mkdir()
    (leftover / "half").write_text("")
    assert bundles.remove_leftovers(folder, "things") == 1
    bundles.remove(folder, "things", BUILD)
    bundles.remove(folder, "things", BUILD)
    assert list((folder / "things").iterdir()) == []


def test_the_hash_in_the_manifest_is_of_the_file(written):
    _, manifest, _, tensors = written
    assert manifest.files[bundles.TENSORS].sha256 == hashlib.sha256(tensors).hexdigest()
