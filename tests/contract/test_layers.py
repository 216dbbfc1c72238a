"""The floors of ARCHITECTURE.md: an import never points up, none goes in a circle, torch stays where a model runs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = [
    {
        "qaserve.common.text",
        "qaserve.common.errors",
        "qaserve.common.files",
        "qaserve.settings",
        "qaserve.records",
        "qaserve.schemas.explore",
        "qaserve.common.progress",
        "qaserve.common.failpoints",
        "qaserve.common.fair_lock",
        "qaserve",
    },
    {
        "qaserve.core.routing",
        "qaserve.core.projection",
        "qaserve.core.lexical",
        "qaserve.core.calibration",
        "qaserve.core.landscape",
        "qaserve.core.metrics",
    },
    {
        "qaserve.store.qdrant",
        "qaserve.store.locks",
        "qaserve.store.embedded",
        "qaserve.store.server",
        "qaserve.store.points",
        "qaserve.encoders.sentence_transformer",
        "qaserve.encoders.sources",
        "qaserve.builds.bundle",
        "qaserve.core.student",
        "ingest.fetch",
    },
    {
        "qaserve.builds.catalog",
        "qaserve.builds.copy",
        "qaserve.search.ranking",
        "qaserve.search.trace",
        "qaserve.replies",
        "qaserve.service.feedback",
        "ingest.judgements",
        "train",
        "ingest",
    },
    {
        "qaserve.search.engine",
        "qaserve.search.explore",
        "qaserve.service.doctor",
        "ingest.pipeline",
        "ingest.jobs",
        "train.experiments.latency",
        "train.experiments.scale",
        "train.experiments.golden",
    },
    {"qaserve.api", "qaserve.client.endpoints", "qaserve.client.http", "qaserve.mcp"},
    {"qaserve.cli", "qaserve.__main__", "ui"},
]
HEAVY = {"torch", "transformers", "sentence_transformers"}
MODEL_ROOMS = {
    "qaserve.encoders.sentence_transformer",
    "qaserve.core.student",
    "train.distillation.training",
    "train.finetuning",
    "train.importance.mlm_head",
    "train.distillation.student_onnx",
    "train.importance.uncertainty",
}
FILES = [path for package in ("qaserve", "ingest", "train", "ui") for path in sorted((ROOT / package).rglob("*.py"))]


def module_of(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def floor_of(module):
    while module:
        for floor, modules in enumerate(FLOORS):
            if module in modules:
                return floor
        module = module.rpartition(".")[0]
    return None


def imports_of(path, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


OURS = {module_of(path): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_an_import_never_points_up(path):
    own = floor_of(module_of(path))
    assert own is not None
    for name in imports_of(path):
        if name in OURS and name != "qaserve":
            assert floor_of(name) <= own, f"{module_of(path)} imports {name}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_torch_is_imported_only_where_a_model_runs(path):
    heavy = {name.split(".")[0] for name in imports_of(path)} & HEAVY
    assert not heavy or module_of(path) in MODEL_ROOMS
    assert not {name.split(".")[0] for name in imports_of(path, top_level_only=True)} & HEAVY


def test_routing_and_projection_are_pure_numpy():
    for name in ("qaserve.core.routing", "qaserve.core.projection"):
        found = {imported.split(".")[0] for imported in imports_of(OURS[name])}
        assert found <= {"numpy", "typing", "collections", "qaserve"}


def test_the_page_knows_the_api_only():
    allowed = {
        "qaserve.client.http",
        "qaserve.records",
        "qaserve.replies",
        "qaserve.schemas.explore",
        "qaserve.settings",
        "qaserve.common.errors",
        "qaserve.common.text",
        "ingest.report",
        "ingest.outcomes",
    }
    for module, path in OURS.items():
        if module.startswith("ui"):
            used = {name for name in imports_of(path) if name in OURS and not name.startswith("ui")}
            assert used <= allowed, module


def test_no_import_goes_in_a_circle():
    graph = {module: {n for n in imports_of(path) if n in OURS and n != module} for module, path in OURS.items()}
    done, active = set(), []

    def visit(module):
        assert module not in active, " → ".join([*active[active.index(module) :], module]) if module in active else ""
        if module in done:
            return
        active.append(module)
        for imported in graph[module]:
            if not module.startswith(f"{imported}."):  # a package's own name, through which its parts are reached
                visit(imported)
        active.pop()
        done.add(module)

    for module in graph:
        visit(module)


def test_environment_variables_are_read_in_settings_only():
    for module, path in OURS.items():
        uses = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        # the second passes it on to its children, the third sets what NumPy reads
        if module not in {"qaserve.settings", "qaserve.cli.service", "qaserve.cli"}:
            assert not [node for node in uses if node.attr == "environ"], module
