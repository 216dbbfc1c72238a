"""Reading a folder of Markdown, and documents as a part of a build."""

import errno
import os
import tempfile
from pathlib import Path
from unicodedata import category
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_files import FEW, files

from ingest.documents import MAX_BYTES, MAX_SECTIONS, read_documents, split, unpack
from ingest.refit import refit
from ingest.selection import Selection
from qaserve.builds.catalog import list_builds, prune, verify
from qaserve.builds.copy import copy
from qaserve.common.errors import CorpusError, DamagedBuildError, StoreWriteError, UsageError
from qaserve.schemas.documents import Links
from qaserve.store.points import to_sections

BREAD = "# Bread\n\nAll about bread.\n\n## When to Use\n\nTo make bread.\n\n```sh\n# no heading\n```\n"
PLAIN = "Nothing but text.\n"


@pytest.fixture
def folder(tmp_path):
    """Documents about two of the things that `rows_about` makes, and of one that no pair names."""
    made = tmp_path / "documents"
    (made / "deep").mkdir(parents=True)
    (made / "skill_bread.md").write_text(BREAD)
    (made / "deep" / "skill_wine.md").write_text("# Wine\n\nPress grapes.\n")
    (made / "skill_salt.md").write_text("# Salt\n\nDry the sea.\n")
    (made / "notes.txt").write_text("not looked at")
    return made


def headings(sections):
    return [section.headings for section in sections]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n\nx\n\n## B\ny\n### C\n## D\n", [("A",), ("A", "B"), ("A", "B", "C"), ("A", "D")]),
        ("before\n# A\n", [(), ("A",)]),
        ("\n\n# A\n", [("A",)]),
        ("Set\n===\n\nx\n\nSub\n---\n", [("Set",), ("Set", "Sub")]),
        ("```\n# no\n```\n~~~\n# no\n~~~\n    # no\n# A\n", [(), ("A",)]),
        ("> # quoted\n\n- # listed\n\n# A\n", [(), ("A",)]),
        ("---\nname: x\n# comment\n---\n# A\n", [(), ("A",)]),
        ("# A `code`  *b* #\n| # | t |\n|---|---|\n", [("A `code` *b*",)]),
        ("### C\n# A\n## B\n", [("C",), ("A",), ("A", "B")]),
        ("#no heading\n####### nor this\n", [()]),
        ("# A\r\nx\r\n## B\ry\n", [("A",), ("A", "B")]),
        ("# A\x85# no\u2028# no\n", [("A\x85# no\u2028# no".replace("\x85", " ").replace("\u2028", " "),)]),
        ("``` \n# an open fence to the end\n", [()]),
    ],
)
def test_sections_begin_at_headings_and_are_the_document(text, expected):
    found = split("a.md", text)
    assert headings(found) == expected
    assert "".join(section.text for section in found) == text
    assert [section.order for section in found] == list(range(len(found)))


HEADINGS = [b"# A", b"## B `c`", b"###### F #", b"===", b"---", b"```", b"~~~ sh", b"    # no", b"> # q", b"- # l"]
MARKDOWN = st.text(max_size=12).map(str.encode) | st.sampled_from(HEADINGS)


@FEW
@given(files(MARKDOWN), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans())
def test_any_document_is_its_sections_or_reported(lines, end, as_text):
    raw = end.join(lines)
    if as_text:  # what is no UTF-8 or holds a control character is not split
        raw = "".join(one for one in raw.decode(errors="ignore") if one in "\n\r\t" or category(one) != "Cc").encode()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.md").write_bytes(raw)
        found = read_documents(Path(folder))
    assert [one.path for one in found.rejected] == ([] if found.sections else ["a.md"])
    if found.sections:
        assert "".join(section.text for section in found.sections) == raw.decode("utf-8-sig")
        assert [section.order for section in found.sections] == list(range(len(found.sections)))
        for section in found.sections:
            assert len(section.headings) <= 6
            assert all(heading == " ".join(heading.split()) for heading in section.headings)


def test_the_title_is_the_first_heading_or_else_the_name():
    assert {section.title for section in split("a/b.md", "text\n\n## B\n\n# A\n")} == {"B"}
    assert split("a/b.md", PLAIN)[0].title == "b"


def test_skills_are_named_by_file_or_folder():
    named = {"a/skill_x.md": "skill_x", "b/SKILL.md": "b", "SKILL.md": None, "README.md": None, "SKILL_INDEX.md": None}
    assert {path: split(path, PLAIN)[0].skill for path in named} == named


def test_what_cannot_be_taken_is_reported_and_the_rest_goes_in(folder, tmp_path):
    outside = tmp_path / "secret.md"
    outside.write_text("# Secret\n")
    with (folder / "huge.md").open("wb") as file:
        file.truncate(50 << 20)
    (folder / "nul.md").write_bytes(b"# A\0\n")
    (folder / "latin.md").write_bytes(b"# A\n\ncaf\xe9\n")
    (folder / "empty.md").write_bytes(b" \n")
    (folder / "bomb.md").write_text("# x\n" * (MAX_SECTIONS + 1))
    (folder / "away.md").symlink_to(outside)
    (folder / "gone.md").symlink_to(folder / "nowhere.md")
    (folder / "loop").symlink_to(folder)
    (folder / "zz").mkdir()
    (folder / "zz" / "Skill_Bread.md").write_text(BREAD)
    os.mkfifo(folder / "pipe.md")
    read = read_documents(folder)
    assert {section.path for section in read.sections} == {"skill_bread.md", "skill_salt.md", "deep/skill_wine.md"}
    assert {bad.path: bad.reason for bad in read.rejected} == {
        "huge.md": f"it has 52,428,800 bytes; at most {MAX_BYTES:,} are read",
        "nul.md": "it is not text: it holds U+0000",
        "latin.md": "it is not UTF-8: line 3 holds the byte 0xe9",
        "empty.md": "it is empty",
        "bomb.md": f"it has {MAX_SECTIONS + 1:,} headings; at most {MAX_SECTIONS:,} are taken",
        "away.md": "it is a link that leads out of the folder",
        "gone.md": "it cannot be read: No such file or directory",
        "loop": "it is a link to a folder",
        "zz/Skill_Bread.md": "skill_bread.md is about a skill of the same name, Skill_Bread",
        "pipe.md": "it is not a regular file",
    }


def test_a_name_that_is_no_text_and_links_in_a_circle_are_reported(folder):
    (folder / "loop.md").symlink_to("loop.md")
    names = {"loop.md"}
    if os.name != "nt" and os.fsencode("caf\udce9.md") == b"caf\xe9.md":
        (folder / "caf\udce9.md").write_text("x")
        names.add("caf\\udce9.md")
    read = read_documents(folder)
    assert {bad.path for bad in read.rejected} == names
    assert len({section.path for section in read.sections}) == 3
    assert all(bad.model_dump_json() for bad in read.rejected)


def test_a_folder_without_documents_is_reported_and_one_that_is_not_there_is_an_error(tmp_path):
    assert read_documents(tmp_path).rejected[0].reason == "the folder holds no file that ends in .md or .markdown"
    with pytest.raises(CorpusError, match="nowhere is not a folder"):
        read_documents(tmp_path / "nowhere")


def test_links_lead_to_paths_and_skills():
    links = Links(("skill_x.md", "deep/skill_y.md", "docs/README.md"))
    assert links.resolve("docs/README.md") == "docs/README.md"
    assert links.resolve("skills/Skill_Y.md") == links.resolve("skill_y") == "deep/skill_y.md"
    for name in ("scripts/skill_x.py", "README.md", "other/README.md", "", "../skill_z.md"):
        assert links.resolve(name) is None


# In a build


def ingest(make_ingest, edge, encoder, write_rows, rows, documents=None, **options):
    return make_ingest(edge, encoder, tune_pairs=0).run([write_rows(rows())], documents=documents, **options)


def sections_of(store):
    live = store.live("things")
    assert store.open(live).metadata.sections == store.open(live.documents).count()
    return to_sections(store.open(live.documents).scroll())[0]


def test_documents_are_part_of_the_build(make_ingest, edge, encoder, write_rows, rows, folder, tmp_path):
    without = ingest(make_ingest, edge, encoder, write_rows, rows)
    report = ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    said = report.documents
    assert (said.read, said.documents, said.sections, said.skills) == (3, 3, 4, 3)
    assert said.added == ("deep/skill_wine.md", "skill_bread.md", "skill_salt.md")
    assert [link.name for link in said.missing] == [f"skill_{one}.md" for one in ("cheese", "glass", "paper", "steel")]
    assert (said.resolved, said.missing_links, said.missing[0].pairs) == (2, 4, 4)
    assert report.build != without.build
    assert edge.corpora() == ["things"]
    assert edge.live_builds() == {"things": report.build}
    assert "".join(one.text for one in sections_of(edge) if one.path == "skill_bread.md") == BREAD
    verify(edge, tmp_path / "models", edge.live("things"))


def test_the_same_again_changes_nothing_and_without_a_folder_they_are_kept(
    make_ingest, edge, encoder, write_rows, rows, folder
):
    first = ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    again = ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    assert (again.build, again.encoded, again.documents.added) == (first.build, 0, ())
    encoder.encoded.clear()
    kept = ingest(make_ingest, edge, encoder, write_rows, lambda: rows()[:-1], replace=True)
    assert kept.build != first.build
    assert encoder.encoded == []
    assert (kept.documents.read, kept.documents.sections, len(sections_of(edge))) == (0, 4, 4)


def test_another_folder_replaces_them_and_encodes_only_what_is_new(
    make_ingest, edge, encoder, write_rows, rows, folder
):
    ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    (folder / "skill_salt.md").unlink()
    (folder / "skill_bread.md").write_text(BREAD.replace("To make bread.", "To bake."))
    foretold = ingest(make_ingest, edge, encoder, write_rows, rows, folder, dry_run=True)
    encoder.encoded.clear()
    report = ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    assert (report.documents.changed, report.documents.removed) == (("skill_bread.md",), ("skill_salt.md",))
    assert len(encoder.encoded) == report.encoded == 1
    assert foretold.build == report.build
    assert {section.path for section in sections_of(edge)} == {"skill_bread.md", "deep/skill_wine.md"}


def test_an_empty_folder_keeps_the_documents(make_ingest, edge, encoder, write_rows, rows, folder, tmp_path):
    first = ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    (tmp_path / "empty").mkdir()
    report = ingest(make_ingest, edge, encoder, write_rows, rows, tmp_path / "empty")
    assert report.build == first.build
    assert report.documents.rejected[0].path == "."


def test_documents_alone_need_a_live_build(make_ingest, edge, encoder, write_rows, rows, folder):
    with pytest.raises(Exception, match="has no live build, whose pairs are needed"):
        make_ingest(edge, encoder, tune_pairs=0).run(documents=folder)
    with pytest.raises(UsageError, match="nothing is named"):
        make_ingest(edge, encoder, tune_pairs=0).run()
    ingest(make_ingest, edge, encoder, write_rows, rows)
    assert make_ingest(edge, encoder, tune_pairs=0).run(documents=folder).documents.read == 3


def test_re_encoding_encodes_the_sections_too(make_ingest, make_encoder, edge, encoder, write_rows, rows, folder):
    ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    other = make_encoder("other", 32)
    report = make_ingest(edge, other, tune_pairs=0).run(re_encode=True)
    assert BREAD.split("## ", maxsplit=1)[0] in "".join(other.encoded)
    assert edge.open(edge.live("things").documents).metadata.encoder.dimension == 32
    assert report.documents.sections == 4


def test_a_copy_holds_the_documents(make_ingest, edge, encoder, write_rows, rows, folder, memory_server):
    from conftest import Silent

    ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    copy(edge, memory_server, "things", Silent())
    assert memory_server.corpora() == ["things"]
    assert sections_of(memory_server) == sections_of(edge)
    ref = edge.live("things").documents
    assert memory_server.open(ref).seal.content_hash == edge.open(ref).seal.content_hash


def test_prune_deletes_them_with_the_build(make_ingest, edge, encoder, write_rows, rows, folder, tmp_path):
    first = ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    second = ingest(make_ingest, edge, encoder, write_rows, lambda: rows()[4:], replace=True)
    assert edge.names("things.documents") == sorted([first.build, second.build])
    assert prune(edge, tmp_path / "models", "things", keep=0) == [first.build]
    assert edge.names("things.documents") == [second.build]


@pytest.mark.parametrize("damage", ["file", "folder"])
def test_a_build_that_lost_its_documents_is_damaged(
    make_ingest, edge, encoder, write_rows, rows, folder, tmp_path, damage
):
    report = ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    place = tmp_path / "data" / "things.documents" / report.build
    if damage == "folder":
        place.rename(place.with_name("elsewhere"))
    else:
        path = next((place / "shard").rglob("vector_storage-section/**/*.mmap"))
        os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DamagedBuildError, match=r"documents"):
        verify(edge, tmp_path / "models", edge.live("things"))
    assert [build.complete for build in list_builds(edge, tmp_path / "models", "things")] == [False]
    again = ingest(make_ingest, edge, encoder, write_rows, rows, folder, replace=True)
    assert again.build == report.build
    assert len(sections_of(edge)) == 4


def test_fitting_and_removing_keep_the_documents(make_ingest, make_builder, edge, encoder, write_rows, rows, folder):
    ingest(make_ingest, edge, encoder, write_rows, rows, folder)
    refit(make_builder(edge, encoder, regularization=3.0), force=True)
    assert len(sections_of(edge)) == 4
    removed = make_ingest(edge, encoder, tune_pairs=0).remove(Selection(ids=("steel_q0",)), force=True)
    assert removed.documents.documents == 3
    assert len(sections_of(edge)) == 4


def packed(path, files):
    with ZipFile(path, "w", ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(name, text)
    return path


@pytest.mark.parametrize(
    ("files", "paths"),
    [
        ({"skill_a.md": "# A", "deep/b.markdown": "# B", "c.txt": "no"}, ["deep/b.markdown", "skill_a.md"]),
        ({"docs/skill_a.md": "# A", "docs/deep/b.md": "# B"}, ["deep/b.md", "skill_a.md"]),
        ({"docs/": "", "docs/a.md": "# A", "__MACOSX/docs/._a.md": "\0"}, ["a.md"]),
        ({"a\\b.md": "# B", "x.md": "# X"}, ["a/b.md", "x.md"]),
        ({}, []),
    ],
)
def test_a_zip_is_unpacked_without_the_folder_that_holds_it_all(tmp_path, files, paths):
    target = tmp_path / "unpacked"
    target.mkdir()
    unpack(packed(tmp_path / "docs.zip", files), target)
    found = read_documents(target)
    assert sorted({section.path for section in found.sections}) == paths
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()) == paths


@pytest.mark.parametrize("name", ["../a.md", "/etc/a.md", "docs/../../a.md", "C:\\a.md", "..\\a.md"])
def test_a_zip_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    target = tmp_path / "unpacked"
    target.mkdir()
    with pytest.raises(CorpusError, match="leads out of it"):
        unpack(packed(tmp_path / "docs.zip", {"fine.md": "# A", name: "# B"}), target)
    assert list(target.iterdir()) == []


def test_a_zip_with_a_name_that_is_too_long_or_no_text_is_refused(tmp_path):
    path = tmp_path / "documents.zip"
    with ZipFile(path, "w") as packed:
        packed.writestr(f"{'n' * 300}.md", "# A")
    with pytest.raises(CorpusError, match="a name of more than 255 bytes: nnn"):
        unpack(path, tmp_path / "out")
    with ZipFile(path, "w") as packed:
        packed.writestr("ä.md", "# A")
    path.write_bytes(path.read_bytes().replace("ä.md".encode(), b"\xff\xff.md"))
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_zip_unpacks_to_is_bounded(tmp_path, monkeypatch):
    target = tmp_path / "unpacked"
    target.mkdir()
    archive = packed(tmp_path / "docs.zip", {"huge.md": "a" * (50 * MAX_BYTES), "small.md": "# A"})
    assert archive.stat().st_size < MAX_BYTES
    unpack(archive, target)
    assert (target / "huge.md").stat().st_size == MAX_BYTES + 1
    (bad,) = read_documents(target).rejected
    assert bad.path == "huge.md"
    monkeypatch.setattr("ingest.documents.MAX_TOTAL_BYTES", MAX_BYTES)
    with pytest.raises(CorpusError, match="unpacks to more than 1,048,576 bytes"):
        unpack(archive, target)
    monkeypatch.setattr("ingest.documents.MAX_FILES", 1)
    with pytest.raises(CorpusError, match="holds more than 1 documents"):
        unpack(archive, target)


def test_a_full_disk_is_no_fault_of_the_zip(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    archive = packed(tmp_path / "docs.zip", {"a.md": "# A"})
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreWriteError, match="cannot be unpacked: No space left on device"):
        unpack(archive, tmp_path)


@pytest.mark.parametrize("damage", ["no zip", "cut", "password", "flipped", "clash"])
def test_a_zip_that_cannot_be_unpacked_is_said(tmp_path, damage):
    files = {"a.md": "# A\n" * 100} | ({"a.md/b.md": "# B"} if damage == "clash" else {})
    archive = packed(tmp_path / "docs.zip", files)
    data = bytearray(archive.read_bytes())
    if damage == "no zip":
        data = bytearray(b"no zip")
    elif damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "password":
        for header, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            data[data.index(header) + offset] |= 1
    elif damage == "flipped":
        data[40] ^= 0xFF
    archive.write_bytes(data)
    target = tmp_path / "unpacked"
    target.mkdir()
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        unpack(archive, target)
