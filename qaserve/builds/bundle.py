"""A bundle: the trained half of a build, as a folder of JSON and safetensors. No pickle.

models/<corpus>/<build>/manifest.json     what it is, how it was made, and the SHA-256 of every other file
models/<corpus>/<build>/model.safetensors the bank of W, the clusters' mean questions and answers, and G
models/<corpus>/<build>/student.safetensors the student's weights, where there is a student

A bundle is written into a folder whose name starts with a dot and appears under its own name by one rename: it is
whole or absent.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from qaserve.builds.manifest import Manifest, entry_for, manifest_bytes
from qaserve.common.errors import BundleError
from qaserve.common.failpoints import failpoint
from qaserve.common.files import sync_folder, writing
from qaserve.core.projection import ProjectionBank
from qaserve.store import BuildRef

MANIFEST = "manifest.json"
TENSORS = "model.safetensors"
STUDENT = "student.safetensors"
HINT = "`qaserve ingest` with the same files makes it again; `qaserve builds activate` goes back to another build."


@dataclass(frozen=True)
class Model:
    """The arrays of a bundle."""

    bank: ProjectionBank
    mean_questions: NDArray[np.float32]
    """(K, D) unit rows, for centroid routing."""
    mean_answers: NDArray[np.float32]
    """(K, D) unit rows: where each cluster of answers lies."""
    whitening: NDArray[np.float32]
    """(D, D) G, see `train.whitening`."""
    student: bytes | None = None
    """The student's weights as `qaserve.core.student` writes them; read when they are used."""


@dataclass(frozen=True)
class Bundle:
    """A manifest and its model, checked against each other."""

    manifest: Manifest
    model: Model
    manifest_hash: str
    """SHA-256 of the manifest as it lies on disk."""


def folder_of(models_dir: Path, ref: BuildRef) -> Path:
    """Where the bundle of a build lies."""
    return models_dir / ref.corpus / ref.build


def pack(model: Model) -> dict[str, bytes]:
    """The files of a model, as safetensors by name; equal models give equal bytes."""
    tensors = {
        "basis": model.bank.basis,
        "cores": model.bank.cores,
        "ranks": model.bank.ranks,
        "mean_questions": model.mean_questions,
        "mean_answers": model.mean_answers,
        "whitening": model.whitening,
    }
    packed = {TENSORS: save_tensors({name: np.ascontiguousarray(array) for name, array in tensors.items()})}
    return packed if model.student is None else packed | {STUDENT: model.student}


def write(models_dir: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a bundle whole, replacing a broken one of the same build.

    Raises:
        StoreWriteError: The disk is full or read-only; nothing is left behind.
    """
    target = folder_of(models_dir, BuildRef(manifest.corpus, manifest.build))
    with writing(
        f"the bundle cannot be written to {target}",
        "Free some space or set QASERVE_MODELS_DIR to a writable folder. The live build is untouched.",
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{manifest.build}-") as scratch:
            failpoint("bundle begun")
            fresh = Path(scratch) / "bundle"
            fresh.mkdir()
            for name, data in (*files.items(), (MANIFEST, manifest_bytes(manifest))):
                with (fresh / name).open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            sync_folder(fresh)
            failpoint("bundle complete")
            if target.exists():
                target.replace(Path(scratch) / "replaced")
            fresh.replace(target)
            sync_folder(target.parent)
        failpoint("bundle in place")


def read(models_dir: Path, ref: BuildRef) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: A file is missing, truncated, altered, of another build, or of another format.
    """
    folder, build, hint = folder_of(models_dir, ref), ref.build, HINT
    try:
        raw = (folder / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(raw)
        contents = {name: (folder / name).read_bytes() for name in manifest.files}
    except FileNotFoundError as error:
        raise BundleError(f"bundle {build}: {Path(error.filename).name} is missing from {folder}", hint=hint) from error
    except OSError as error:
        raise BundleError(f"bundle {build}: {folder} cannot be read: {error.strerror}", hint=hint) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise BundleError(f"bundle {build}: {MANIFEST} is not valid: {where}: {first['msg']}", hint=hint) from error
    if (manifest.student is None) != (STUDENT not in manifest.files):
        raise BundleError(f"bundle {build}: {MANIFEST} and its list of files disagree about a student", hint=hint)
    if (manifest.corpus, manifest.build) != ref:
        raise BundleError(
            f"bundle {build} of corpus {ref.corpus}: {MANIFEST} says {manifest.build} of {manifest.corpus}", hint=hint
        )
    for name, data in contents.items():
        expected, found = manifest.files[name], entry_for(data)
        if found != expected:
            raise BundleError(
                f"bundle {build}: {name} has {found.size} bytes and SHA-256 {found.sha256[:12]}…, "
                f"{MANIFEST} says {expected.size} and {expected.sha256[:12]}…",
                hint=hint,
            )
    return Bundle(manifest, _unpack(manifest, contents, hint), entry_for(raw).sha256)


def read_manifest(models_dir: Path, ref: BuildRef) -> Manifest | None:
    """What a bundle says of itself, its tensors unchecked; None where that cannot be read."""
    try:
        return Manifest.model_validate_json((folder_of(models_dir, ref) / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def _unpack(manifest: Manifest, contents: dict[str, bytes], hint: str) -> Model:
    try:
        tensors = load_tensors(contents[TENSORS])
        bank = ProjectionBank(tensors["basis"], tensors["cores"], tensors["ranks"])
        means = tensors["mean_questions"], tensors["mean_answers"]
        model = Model(bank, *means, tensors["whitening"], contents.get(STUDENT))
    except (KeyError, ValueError, SafetensorError) as error:
        raise BundleError(f"bundle {manifest.build}: its tensors are not usable: {error}", hint=hint) from error
    count, dimension = len(manifest.clusters), manifest.encoder.dimension
    expected = {
        "basis": (len(bank.basis), dimension),
        "ranks": (count,),
        "mean_questions": (count, dimension),
        "mean_answers": (count, dimension),
        "whitening": (dimension, dimension),
    }
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise BundleError(
                f"bundle {manifest.build}: {name} is {tensors[name].shape}; {MANIFEST} says {shape} "
                f"(K = {count}, D = {dimension})",
                hint=hint,
            )
    return model


def remove(models_dir: Path, ref: BuildRef) -> None:
    """Delete a bundle; it vanishes by one rename before its files go. One that is not there is no error."""
    target = folder_of(models_dir, ref)
    if not target.exists():
        return
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{ref.build}-") as scratch:
        target.replace(Path(scratch) / "removed")
    failpoint("bundle removed")


def remove_leftovers(models_dir: Path, corpus: str) -> int:
    """Delete what an interrupted `write` or `remove` left behind; returns how many folders."""
    leftovers = list((models_dir / corpus).glob(".*-*"))
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    return len(leftovers)
