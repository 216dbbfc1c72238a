"""A folder of Markdown documents in, their sections out. A file that cannot be taken is reported; the rest goes in.

A section begins at each heading of the top level, as CommonMark finds them: a `#` in a fenced or indented block, in a
quotation or in front matter is none. The text is not changed: the sections of a document, one after another, are it.
"""

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

from markdown_it import MarkdownIt

from ingest.pairs import PairTable
from qaserve.common.errors import CorpusError
from qaserve.common.files import writing
from qaserve.common.text import control_character, has_surrogate, shorten
from qaserve.schemas.documents import BadDocument, DocumentsReport, Links, MissingLink, Section

SUFFIXES = (".md", ".markdown")
MAX_FILES = 10_000
MAX_BYTES = 1 << 20
"""Of a document."""
MAX_TOTAL_BYTES = 64 << 20
"""Of all documents: a build that is open holds their text in memory."""
NAME_BYTES = 255
"""Of a file or folder in a zip: more no file system takes."""
MAX_SECTIONS = 1_000
"""Of a document."""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_FRONT_MATTER = re.compile(r"---[ \t]*(?:\r\n|\r|\n)(?:[^\r\n]*(?:\r\n|\r|\n))*?(?:---|\.\.\.)[ \t]*(?:\r\n|\r|\n|\Z)")
_SPACES = re.compile(r"\s+")

_markdown = MarkdownIt("commonmark")
_markdown.core.ruler.enableOnly(["normalize", "block"])  # inline markup is not looked at


LISTED = 1_000
"""Missing links in a report, at most."""


class Read(NamedTuple):
    """What a folder of documents gave."""

    sections: tuple[Section, ...]
    """In the order of paths, and within a document in its own order."""
    rejected: tuple[BadDocument, ...]


class _BadFileError(Exception):
    """Why a file is not taken."""


def read_documents(folder: Path) -> Read:
    """Read the Markdown files below a folder, in depth.

    Raises:
        CorpusError: It is not a folder, cannot be listed, or holds more than `MAX_FILES`.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder", hint="--documents takes a folder of Markdown files.")
    sections: list[Section] = []
    rejected: list[BadDocument] = []
    names: dict[str, str] = {}
    files, left = _find(folder, rejected), MAX_TOTAL_BYTES
    if not files and not rejected:
        rejected.append(BadDocument(path=".", reason=f"the folder holds no file that ends in {' or '.join(SUFFIXES)}"))
    for path in files:
        try:
            if has_surrogate(path):
                raise _BadFileError("its name is not UTF-8")
            text, size = _text_of(folder, path, left)
            found = split(path, text)
            _check_name(found[0], names)
        except _BadFileError as bad:
            rejected.append(BadDocument(path=path.encode("utf-8", "backslashreplace").decode(), reason=str(bad)))
        else:
            left -= size
            sections += found
    return Read(tuple(sections), tuple(rejected))


def unpack(archive: Path, folder: Path) -> None:
    """Write the Markdown files of a zip into a folder; one folder that holds them all is left out.

    Of a file no more than `MAX_BYTES` + 1 are unpacked, whatever size it claims: `read_documents` rejects it then.

    Raises:
        CorpusError: It is no zip, is packed in a way that is not read, leads out of the folder, or holds more than
            `MAX_FILES` documents or `MAX_TOTAL_BYTES`.
        StoreWriteError: There is no room for what it holds.
    """
    try:
        with ZipFile(archive) as packed:
            found = {_inside(archive, one.filename): one for one in packed.infolist() if _is_document(one.filename)}
            if len(found) > MAX_FILES:
                raise CorpusError(f"{archive} holds more than {MAX_FILES:,} documents", hint="Send fewer.")
            if any(parent in found for path in found for parent in path.parents):
                raise BadZipFile("a file and a folder have the same path")
            common = len({path.parts[0] for path in found}) == 1 and all(len(path.parts) > 1 for path in found)
            left = MAX_TOTAL_BYTES
            for path, one in found.items():
                with packed.open(one) as file:
                    data = file.read(MAX_BYTES + 1)
                left -= len(data)
                if left < 0:
                    raise CorpusError(f"{archive} unpacks to more than {MAX_TOTAL_BYTES:,} bytes", hint="Send less.")
                target = folder.joinpath(*path.parts[common:])
                with writing(f"{archive} cannot be unpacked", "Free some space; nothing was changed."):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
    except (BadZipFile, zlib.error, LZMAError, RuntimeError, EOFError, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{archive} cannot be unpacked: {error}", hint="Send a zip without a password.") from error


def _is_document(name: str) -> bool:
    """Whether a file of a zip is read; macOS adds a folder of its own."""
    return name.lower().endswith(SUFFIXES) and not name.startswith("__MACOSX/")


def _inside(archive: Path, name: str) -> PurePosixPath:
    """The path of a file in a zip. Raises CorpusError where it leads out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or control_character(name):
        raise CorpusError(
            f"{archive} holds a path that leads out of it: {shorten(name, 80)}", hint="Pack the folder again."
        )
    if any(len(part.encode("utf-8", "surrogatepass")) > NAME_BYTES for part in path.parts):
        raise CorpusError(
            f"{archive} holds a name of more than {NAME_BYTES} bytes: {shorten(name, 80)}", hint="Shorten it."
        )
    return path


def _find(folder: Path, rejected: list[BadDocument]) -> list[str]:
    """Paths of the Markdown files below a folder; links to folders are not followed, for they may loop."""

    def refuse(error: OSError) -> None:
        raise CorpusError(
            f"folder {error.filename} cannot be read: {error.strerror}", hint="Check its permissions."
        ) from error

    found: list[str] = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        below = Path(root).relative_to(folder)
        links = (name for name in folders if (Path(root) / name).is_symlink())
        rejected += (BadDocument(path=(below / name).as_posix(), reason="it is a link to a folder") for name in links)
        found += [(below / name).as_posix() for name in names if name.lower().endswith(SUFFIXES)]
        if len(found) > MAX_FILES:
            raise CorpusError(f"{folder} holds more than {MAX_FILES:,} documents", hint="Name a folder below it.")
    return sorted(found)


def _text_of(folder: Path, path: str, left: int) -> tuple[str, int]:
    """The text of a file and its bytes. Raises _BadFileError."""
    try:
        data = _bytes_of(folder, folder / path)
    except (OSError, RuntimeError) as error:  # before Python 3.13 links that lead in a circle are a RuntimeError
        raise _BadFileError(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > left:
        raise _BadFileError(f"with it the folder has more than {MAX_TOTAL_BYTES:,} bytes of documents")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _BadFileError(f"it is not UTF-8: line {line} holds the byte 0x{data[error.start]:02x}") from error
    control = control_character(text)
    if control is not None:
        raise _BadFileError(f"it is not text: it holds {control}")
    if not text.strip():
        raise _BadFileError("it is empty")
    return text, len(data)


def _bytes_of(folder: Path, file: Path) -> bytes:
    if not file.resolve(strict=True).is_relative_to(folder.resolve()):
        raise _BadFileError("it is a link that leads out of the folder")
    if not file.is_file():
        raise _BadFileError("it is not a regular file")
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _BadFileError(f"it has {file.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    return data


def _check_name(first: Section, names: dict[str, str]) -> None:
    """Raise _BadFileError where another document is about a skill of this name; else note the name."""
    if first.skill is None:
        return
    other = names.setdefault(first.skill.casefold(), first.path)
    if other != first.path:
        raise _BadFileError(f"{other} is about a skill of the same name, {first.skill}")


def split(path: str, text: str) -> list[Section]:
    """The sections of a document; their texts, one after another, are `text`.

    Args:
        path: Of the document.
        text: With something else than spaces in it.

    Raises:
        _BadFileError: There are more than `MAX_SECTIONS`.
    """
    lines = _LINE.findall(text)
    headings = list(_headings(text))
    if len(headings) > MAX_SECTIONS:
        raise _BadFileError(f"it has {len(headings):,} headings; at most {MAX_SECTIONS:,} are taken")
    starts = [line for line, _, _ in headings]
    if not "".join(lines[: starts[0] if starts else None]).strip():  # nothing stands before the first heading
        starts[0] = 0
    else:
        starts, headings = [0, *starts], [(0, 0, ""), *headings]
    title = next((name for _, _, name in headings if name), Path(path).stem)
    trail: list[tuple[int, str]] = []
    sections = []
    for order, (start, end) in enumerate(zip(starts, [*starts[1:], len(lines)], strict=True)):
        _, level, name = headings[order]
        if level:
            trail = [*(above for above in trail if above[0] < level), (level, name)]
        own = tuple(name for _, name in trail)
        sections.append(Section(path=path, title=title, headings=own, text="".join(lines[start:end]), order=order))
    return sections


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Line from 0, level 1 to 6 and text of each heading that is in no other block."""
    front = _FRONT_MATTER.match(text)
    skipped = 0 if front is None else len(_LINE.findall(front.group()))
    tokens = _markdown.parse(text if front is None else text[front.end() :])
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            name = _SPACES.sub(" ", inline.content).strip()
            yield skipped + token.map[0], int(token.tag[1]), name


def describe_documents(
    read: Read | None, sections: Sequence[Section], before: Sequence[Section], pairs: PairTable
) -> DocumentsReport | None:
    """What an ingest makes of the documents; None where there are none, and no folder was named.

    Args:
        read: What the folder gave; None: none was named.
        sections: Of the build to be.
        before: Of the live build.
        pairs: Of the build to be.
    """
    if read is None and not sections:
        return None
    now, earlier = _by_path(sections), _by_path(before)
    links = Links(tuple(now))
    named = pairs.links
    missing = sorted((-count, name) for name, count in named.items() if links.resolve(name) is None)
    return DocumentsReport(
        read=0 if read is None else len(_by_path(read.sections)),
        documents=len(now),
        sections=len(sections),
        skills=sum(found[0].skill is not None for found in now.values()),
        added=tuple(path for path in now if path not in earlier),
        changed=tuple(path for path in now if path in earlier and now[path] != earlier[path]),
        removed=tuple(path for path in earlier if path not in now),
        rejected=() if read is None else read.rejected,
        resolved=len(named) - len(missing),
        missing=tuple(MissingLink(name=name, pairs=-count) for count, name in missing[:LISTED]),
        missing_links=len(missing),
    )


def _by_path(sections: Sequence[Section]) -> dict[str, list[Section]]:
    found: dict[str, list[Section]] = {}
    for section in sections:
        found.setdefault(section.path, []).append(section)
    return found
