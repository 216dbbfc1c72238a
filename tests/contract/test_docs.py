"""What the documents say is what the code has."""

import json
import re
from pathlib import Path

import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.cli import load_all
from qaserve.cli.reference import pages
from qaserve.cli.service import SAMPLE
from qaserve.common.text import fold
from qaserve.settings import RENAMED, ReadSettings, setting_names

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "docs/glossary.md",
    "docs/experiments.md",
    "docs/import.md",
    "docs/serving.md",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "models/README.md",
    "qaserve/sample/sample.jsonl",
]
NAMED = re.compile(r"(?:`|^ *(?:\$ )?(?:QASERVE_\w+=\S+ )*)qaserve ([a-z]+)(?: ([a-z]+)\b)?", re.MULTILINE)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def commands():
    app = load_all()
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    names = {command.name or command.callback.__name__ for command in app.registered_commands} | set(groups)
    return names, {
        name: {command.name or command.callback.__name__ for command in group.registered_commands}
        for name, group in groups.items()
    }


def test_the_reference_pages_are_what_the_code_gives():
    for name, page in pages().items():
        assert read(f"docs/{name}") == page, "run `qaserve reference`"
    settings = set(re.findall(r"^\| `(QASERVE_\w+)` \|", read("docs/settings.md"), re.MULTILINE))
    assert settings == set(setting_names())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_only_commands_and_settings_that_exist_are_named(name):
    text = read(name).replace("\\n", "\n")
    names, groups = commands()
    for command, sub in re.findall(NAMED, text):
        assert command in names, f"qaserve {command}"
        if command in groups and sub:
            assert sub in groups[command], f"qaserve {command} {sub}"
    assert set(re.findall(r"\bQASERVE_[A-Z_]+[A-Z]\b", text)) <= {*setting_names(), *RENAMED, "QASERVE_TEST_QDRANT_URL"}


def test_files_that_the_readme_links_to_exist():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", read("README.md")):
        assert (ROOT / target).exists(), target


def test_architecture_names_every_module():
    text = read("ARCHITECTURE.md")
    for package in ("qaserve", "ingest", "train", "ui"):
        for path in (ROOT / package).glob("*.py"):
            if not path.stem.startswith("__"):
                assert re.search(rf"\b{path.stem}\b", text), path


def test_the_sample_teaches_the_product():
    found = list(read_files(find_files([SAMPLE]), ReadSettings()))
    assert all(isinstance(item, Located) for item in found)
    pairs = [item.pair for item in found]
    assert len(pairs) >= 80
    assert len({fold(pair.question) for pair in pairs}) == len(pairs)
    phrasings = [json.loads(line)["question_variants"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    assert all(len(variants) >= 2 for variants in phrasings)


def test_constraints_pin_every_package_exactly_with_hashes():
    pins = re.split(r"\n(?=[^ #\n])", re.sub(r"^#.*\n|^\n", "", read("constraints.txt"), flags=re.MULTILINE).strip())
    hashed = r"([A-Za-z0-9._-]+)==[A-Za-z0-9._+!-]+(?: ;[^\\]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+"
    matches = [re.fullmatch(hashed, pin) for pin in pins]
    assert all(matches), [pin for pin, match in zip(pins, matches, strict=True) if not match]
    pinned = {match[1].lower().replace("_", "-") for match in matches} | {"torch"}
    assert len(pinned) == len(pins) + 1
    assert "TORCH := torch==2.13.0\n" in read("Makefile")
    assert " torch==2.13.0 " in read("Dockerfile")
    import tomllib

    document = tomllib.loads(read("pyproject.toml"))
    project, build = document["project"], document["build-system"]["requires"]
    assert all(f"\n{requirement} \\\n" in read("constraints.txt") for requirement in build)
    needed = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    for requirement in needed:
        name = re.split(r"[<>=!~ \[]", requirement)[0].lower().replace("_", "-")
        assert name in pinned or name == project["name"], requirement
