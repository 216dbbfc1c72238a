import importlib
import pkgutil
import sys
from collections.abc import Callable

import pytest

import qaserve.cli
from qaserve.cli import main
from qaserve.settings import get_settings


@pytest.fixture
def run(monkeypatch, capsys, encoder) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process with the fake encoder; returns exit code, stdout and stderr."""
    encoder.identity = encoder.identity.model_copy(update={"id": "minilm"})
    for found in pkgutil.iter_modules(qaserve.cli.__path__, "qaserve.cli."):
        if hasattr(importlib.import_module(found.name), "make_encoder"):
            monkeypatch.setattr(f"{found.name}.make_encoder", lambda _: encoder)
    monkeypatch.setenv("COLUMNS", "160")

    def execute(*arguments):
        get_settings.cache_clear()
        monkeypatch.setattr(sys, "argv", ["qaserve", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return execute
