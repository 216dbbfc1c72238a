import hashlib
import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from qaserve.builds import bundle as bundles
from qaserve.builds.bundle import Model
from qaserve.builds.manifest import Manifest, entry_for
from qaserve.common.errors import BundleError, StoreWriteError
from qaserve.core.projection import ProjectionBank
from qaserve.schemas.builds import ClusterInfo, EncoderIdentity
from qaserve.schemas.params import Hyperparameters
from qaserve.store import BuildRef
from qaserve.store.words import Bm25Params
from train.procrustes import anchored

D, K, BUILD = 6, 3, "0123456789ab"
REF = BuildRef("things", BUILD)


@pytest.fixture
def written(tmp_path, rng):
    rows = rng.normal(size=(2, K, 4, D))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    bank = ProjectionBank.pack([anchored(s, t, 1.0) for s, t in zip(*rows, strict=True)], D)
    means = rng.normal(size=(K, D)).astype(np.float32)
    model = Model(bank, means, -means, np.eye(D, dtype=np.float32))
    files = bundles.pack(model)
    manifest = Manifest(
        build=BUILD,
        corpus="things",
        corpus_hash="0" * 64,
        encoder=EncoderIdentity(id="fake", revision="1", dimension=D),
        pairs=12,
        hyperparameters=Hyperparameters(),
        precision=0.75,
        rank_form="participation",
        max_clusters=9,
        seed=0,
        effective_rank=3.1,
        bm25=Bm25Params(average_length=12.5),
        clusters=[ClusterInfo(cluster=k, name=f"c{k}", terms=(), skills=(), size=4) for k in range(K)],
        files={name: entry_for(data) for name, data in files.items()},
    )
    bundles.write(tmp_path, manifest, files)
    return tmp_path, manifest, model, files


def test_a_bundle_comes_back_as_it_was_written(written):
    folder, manifest, model, _ = written
    found = bundles.read(folder, REF)
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
    folder, manifest, _, files = written
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    bundles.write(folder, manifest, files)
    assert {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize("name", [bundles.MANIFEST, bundles.TENSORS])
def test_a_missing_file_is_named(written, name):
    folder = written[0]
    (folder / "things" / BUILD / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        bundles.read(folder, REF)


def test_a_truncated_file_is_told_with_both_sizes(written):
    folder, _, _, files = written
    tensors = files[bundles.TENSORS]
    (folder / "things" / BUILD / bundles.TENSORS).write_bytes(tensors[:-10])
    with pytest.raises(BundleError, match=rf"has {len(tensors) - 10} bytes .* says {len(tensors)}"):
        bundles.read(folder, REF)


def test_every_single_flipped_bit_is_noticed(written, rng):
    folder, _, _, files = written
    tensors = files[bundles.TENSORS]
    path = folder / "things" / BUILD / bundles.TENSORS
    for position in rng.integers(0, len(tensors), 25):
        broken = bytearray(tensors)
        broken[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with pytest.raises(BundleError, match=r"SHA-256"):
            bundles.read(folder, REF)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 4}, "format: Input should be 7"),
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
        bundles.read(folder, REF)


def test_a_manifest_that_is_no_json_is_refused(written):
    folder = written[0]
    (folder / "things" / BUILD / bundles.MANIFEST).write_text('{"format": 1, "bui')
    with pytest.raises(BundleError, match=r"manifest\.json is not valid"):
        bundles.read(folder, REF)


@pytest.mark.parametrize("name", ["mean_questions", "mean_answers", "whitening"])
def test_tensors_of_other_shapes_are_refused_with_both(written, name):
    folder, manifest, model, _ = written
    other = bundles.pack(replace(model, **{name: getattr(model, name)[:2]}))
    lying = manifest.model_copy(update={"files": {name: entry_for(data) for name, data in other.items()}})
    bundles.write(folder, lying, other)
    with pytest.raises(BundleError, match=rf"{name} is \(2, {D}\).*K = {K}, D = {D}"):
        bundles.read(folder, REF)


def _without_ranks(data):
    return save_tensors({name: array for name, array in load_tensors(data).items() if name != "ranks"})


@pytest.mark.parametrize("junk", [lambda _: b"not safetensors", _without_ranks])
def test_bytes_that_are_no_tensors_are_refused(written, junk):
    folder, manifest, _, files = written
    wrong = {bundles.TENSORS: junk(files[bundles.TENSORS])}
    lying = manifest.model_copy(update={"files": {key: entry_for(data) for key, data in wrong.items()}})
    bundles.write(folder, lying, wrong)
    with pytest.raises(BundleError, match="not usable"):
        bundles.read(folder, REF)


def test_a_place_that_cannot_be_written_leaves_nothing(written, tmp_path):
    _, manifest, _, files = written
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="the bundle cannot be written to"):
        bundles.write(tmp_path / "file", manifest, files)


def test_removing_and_what_an_interrupted_write_left(written):
    folder = written[0]
    leftover = folder / "things" / f".{BUILD}-dead"
    leftover.mkdir()
    (leftover / "half").write_text("")
    assert bundles.remove_leftovers(folder, "things") == 1
    bundles.remove(folder, REF)
    bundles.remove(folder, REF)
    assert list((folder / "things").iterdir()) == []


def test_the_hash_in_the_manifest_is_of_the_file(written):
    folder, manifest, _, files = written
    for name, data in files.items():
        assert manifest.files[name].sha256 == hashlib.sha256(data).hexdigest()
    raw = (folder / "things" / BUILD / bundles.MANIFEST).read_bytes()
    assert bundles.read(folder, REF).manifest_hash == hashlib.sha256(raw).hexdigest()


# Anything at all in place of a file's content

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ANY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refused(folder):
    """A bundle is read or refused; nothing else comes out."""
    with suppress(BundleError):
        bundles.read(folder, REF)


def places_in(document):
    """Every key of a document and of what it holds: the holder and the key."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield document, key
        if isinstance(value, dict | list):
            yield from places_in(value)


@ANY
@given(number=st.integers(0, 1000), value=VALUES)
def test_a_manifest_with_any_value_anywhere_is_read_or_refused(written, number, value):
    path = written[0] / "things" / BUILD / "manifest.json"
    before = path.read_text()
    document = json.loads(before)
    places = list(places_in(document))
    holder, key = places[number % len(places)]
    holder[key] = value
    path.write_text(json.dumps(document))
    read_or_refused(written[0])
    path.write_text(before)


@ANY
@given(content=st.binary(max_size=300), cut=st.integers(0, 2000))
def test_tensors_of_any_bytes_that_the_manifest_vouches_for_are_read_or_refused(written, content, cut):
    folder, manifest, _, files = written
    (name, data) = next(iter(files.items()))
    changed = data[:cut] + content + data[cut + len(content) :]
    root = folder / "things" / BUILD
    (root / name).write_bytes(changed)
    (root / "manifest.json").write_text(
        manifest.model_copy(update={"files": {name: entry_for(changed)}}).model_dump_json()
    )
    read_or_refused(folder)


def test_its_folder_and_its_name_are_put_on_the_disk(written, monkeypatch, tmp_path):
    """Else `live` may outlive it where the power fails."""
    _, manifest, _, files = written
    seen, target = [], tmp_path / "other" / "things" / BUILD
    monkeypatch.setattr(bundles, "sync_folder", lambda path: seen.append((path.name, target.exists())))
    bundles.write(tmp_path / "other", manifest, files)
    assert seen == [("bundle", False), ("things", True)]
