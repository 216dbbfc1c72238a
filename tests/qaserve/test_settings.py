import os
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from qaserve.common.errors import SettingsError
from qaserve.settings import Settings, get_settings, setting_names, unknown_variables

SECRET = "hunter2-hunter2"

# Variable without prefix: section, lowest and highest value, values that are just out of bounds.
BOUNDS = {
    "QDRANT_TIMEOUT": ("store", 1, 600, ["0", "601", "-1"]),
    "QDRANT_ATTEMPTS": ("store", 1, 20, ["0", "21"]),
    "QDRANT_BUDGET": ("store", 1e-3, 600, ["0", "601", "nan"]),
    "QDRANT_GREEN": ("store", 0, 86_400, ["-1", "86401", "nan"]),
    "QDRANT_SHARDS": ("store", 1, None, ["0"]),
    "QDRANT_REPLICAS": ("store", 1, None, ["0"]),
    "QDRANT_WRITE_CONSISTENCY": ("store", 1, None, ["0"]),
    "HNSW_PAIRS": ("store", 1, None, ["0", "-1"]),
    "LOCK_WAIT": ("store", 0, 3_600, ["-1", "3601", "nan"]),
    "ENCODER_BATCH": ("encoder", 1, 1024, ["0", "1025"]),
    "MAX_LINE_BYTES": ("read", 1024, None, ["1023", "0", "-1"]),
    "MAX_QUESTION_CHARS": ("read", 1, None, ["0", "-1"]),
    "MAX_ANSWER_CHARS": ("read", 1, None, ["0", "-1"]),
    "REGULARIZATION": ("fit", 1e-12, 1e9, ["0", "-1", "1.1e9", "nan", "inf"]),
    "MAX_CLUSTERS": ("fit", 1, None, ["0", "-1"]),
    "SEED": ("fit", 0, 2**32 - 1, ["-1", str(2**32)]),
    "TEMPERATURE": ("search", 1e-4, 1e3, ["0", "0.00009", "1000.1", "-1", "nan", "inf"]),
    "FINAL_TEMPERATURE": ("search", 1e-4, 1e3, ["0", "0.00009", "1000.1", "-1", "nan", "inf"]),
    "HITS": ("search", 1, 10_000, ["0", "10001", "-1"]),
    "LEXICAL_WEIGHT": ("search", 0.0, 1.0, ["-0.1", "1.1", "nan"]),
    "PROJECTION_SHARE": ("search", 0.0, 1.0, ["-0.1", "1.1", "nan"]),
    "TOPIC_WEIGHT": ("search", 0.0, 1.0, ["-0.1", "1.1", "nan"]),
    "SECOND_SHARE": ("search", 0.0, 1.0, ["-0.1", "1.1", "nan"]),
    "WHITENING": ("search", 0.0, 1.0, ["-0.1", "1.1", "nan"]),
    "PRECISION": ("fit", 1e-6, 1 - 1e-6, ["0", "1", "-1", "nan"]),
    "GATE_TOLERANCE": ("fit", 0, 1, ["-0.1", "1.1", "nan"]),
    "TUNE_PAIRS": ("fit", 0, 10**12, ["-1", "1.5"]),
    "CENTROIDS": ("search", 1, 10_000, ["0", "10001", "-1"]),
    "PORT": ("server", 1, 65535, ["0", "65536", "-1"]),
    "WORKERS": ("server", 1, 64, ["0", "65"]),
    "UI_PORT": ("server", 1, 65535, ["0", "65536", "-1"]),
    "MAX_BODY_BYTES": ("limits", 1024, None, ["1023", "-1"]),
    "MAX_ASKED_CHARS": ("limits", 1, 4_000, ["0", "4001"]),
    "MAX_TOP_K": ("limits", 1, 100, ["0", "101"]),
    "MAX_HITS": ("limits", 1, 10_000, ["0", "10001"]),
    "MAX_QUESTIONS": ("limits", 1, None, ["0", "-1"]),
    "REQUEST_SECONDS": ("limits", 1e-3, 600, ["0", "-1", "600.1", "nan"]),
    "REQUESTS_PER_MINUTE": ("limits", 0, None, ["-1", "1.5"]),
    "QUEUE": ("limits", 1, None, ["0", "-1"]),
    "BATCH": ("limits", 1, 1024, ["0", "1025"]),
    "BATCH_WINDOW_MS": ("limits", 0.0, 1000, ["-1", "1001", "nan"]),
    "KEEP_DAYS": ("server", 1, 3_650, ["0", "3651", "1.5"]),
    "API_TIMEOUT": ("server", 1e-3, 600, ["0", "-1", "600.1", "nan", "inf"]),
    "MAX_UPLOAD_BYTES": ("limits", 1024, 10**12, ["1023", "0", "-1", "1.5"]),
    "WAITING_JOBS": ("limits", 1, 1000, ["0", "1001", "-1"]),
}
CHOICES = {
    "DRIFT": ("fit", ["recluster", "recommend"]),
    "ROUTING": ("search", ["question", "question2", "centroid"]),
    "PROJECTION": ("search", ["cluster", "pair", "student", "none"]),
    "RANK_FORM": ("fit", ["participation", "entropy"]),
}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [name for name in os.environ if name.upper().startswith("QASERVE_")]:
        monkeypatch.delenv(name)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def told(error):
    """Everything that an error tells a person."""
    return f"{error} {error!r} {error.message} {error.hint}"


def value_of(settings, section, variable):
    return getattr(getattr(settings, section), variable.lower())


# Bounds


def test_defaults_are_those_of_the_contract():
    settings = Settings()
    assert settings.store.data_dir == Path("data")
    assert settings.store.models_dir == Path("models")
    assert settings.encoder.encoder == "minilm"
    assert settings.server.host == "127.0.0.1"
    unset = (settings.store.qdrant_url, settings.store.qdrant_api_key, settings.store.corpus, settings.server.api_key)
    assert unset == (None, None, None, None)


def test_every_number_has_its_bounds_in_this_table():
    numbers = set()
    for section in Settings.SECTIONS:
        for name, schema in section.model_json_schema()["properties"].items():
            kinds = {branch.get("type") for branch in schema.get("anyOf", [schema])}
            if kinds & {"integer", "number"}:
                numbers.add(name.upper())
    assert numbers == set(BOUNDS)


@pytest.mark.parametrize(("variable", "section", "value"), [(v, b[0], x) for v, b in BOUNDS.items() for x in b[1:3]])
def test_a_number_on_its_bound_is_taken(monkeypatch, variable, section, value):
    if value is None:
        value = 10**9
    monkeypatch.setenv(f"QASERVE_{variable}", str(value))
    assert value_of(Settings(), section, variable) == value


@pytest.mark.parametrize(("variable", "value"), [(v, x) for v, b in BOUNDS.items() for x in [*b[3], "many", "1,5"]])
def test_a_number_out_of_bounds_is_refused_by_name_and_value(monkeypatch, variable, value):
    monkeypatch.setenv(f"QASERVE_{variable}", value)
    with pytest.raises(SettingsError, match=f"^QASERVE_{variable}='{value}': .+") as caught:
        Settings()
    assert "docs/settings.md" in caught.value.hint


@pytest.mark.parametrize(("variable", "section", "value"), [(v, c[0], x) for v, c in CHOICES.items() for x in c[1]])
def test_a_choice_is_taken(monkeypatch, variable, section, value):
    monkeypatch.setenv(f"QASERVE_{variable}", value)
    assert value_of(Settings(), section, variable) == value


@pytest.mark.parametrize("variable", CHOICES)
def test_another_choice_is_refused_with_those_there_are(monkeypatch, variable):
    monkeypatch.setenv(f"QASERVE_{variable}", "magic")
    with pytest.raises(SettingsError, match=f"^QASERVE_{variable}='magic': ") as caught:
        Settings()
    for choice in CHOICES[variable][1]:
        assert choice in caught.value.message


@pytest.mark.parametrize("value", ["skills", "0", "a_b-c", "a" * 63])
def test_a_corpus_name_is_taken(monkeypatch, value):
    monkeypatch.setenv("QASERVE_CORPUS", value)
    assert Settings().store.corpus == value


@pytest.mark.parametrize("value", ["Skills", "a b", "-a", "_a", "a@b", "../a", "ä", "a" * 64, "a\n", " "])
def test_a_bad_corpus_name_is_refused(monkeypatch, value):
    monkeypatch.setenv("QASERVE_CORPUS", value)
    with pytest.raises(SettingsError, match=r"^QASERVE_CORPUS=") as caught:
        Settings()
    assert repr(value) in caught.value.message


@pytest.mark.parametrize("variable", ["QDRANT_URL", "API_URL"])
@pytest.mark.parametrize("value", ["http://localhost:6333", "https://example.org/a/b", "http://[::1]:1"])
def test_an_address_is_taken(monkeypatch, variable, value):
    monkeypatch.setenv(f"QASERVE_{variable}", value)
    assert value_of(Settings(), "store" if variable == "QDRANT_URL" else "server", variable) == value


@pytest.mark.parametrize("variable", ["QDRANT_URL", "API_URL"])
@pytest.mark.parametrize(
    "value", ["localhost:6333", "ftp://host", "http://", "http:///path", "http://a b", "file:///x"]
)
def test_a_bad_address_is_refused(monkeypatch, variable, value):
    monkeypatch.setenv(f"QASERVE_{variable}", value)
    with pytest.raises(SettingsError, match=f"^QASERVE_{variable}='{value}': "):
        Settings()


@pytest.mark.parametrize(("name", "most"), [("NOTICE", 500), ("TITLE", 100)])
def test_a_text_for_the_page_has_a_longest_length(monkeypatch, name, most):
    monkeypatch.setenv(f"QASERVE_{name}", "n" * most)
    assert getattr(Settings().server, name.lower()) == "n" * most
    monkeypatch.setenv(f"QASERVE_{name}", "n" * (most + 1))
    with pytest.raises(SettingsError, match=rf"^QASERVE_{name}=.*at most {most} characters"):
        Settings()


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().server.port = 1


# Secrets and open doors


def test_a_key_without_a_server_is_refused(monkeypatch):
    monkeypatch.setenv("QASERVE_QDRANT_API_KEY", SECRET)
    with pytest.raises(SettingsError, match=r"^QASERVE_QDRANT_API_KEY is set but QASERVE_QDRANT_URL is not"):
        Settings()
    monkeypatch.setenv("QASERVE_QDRANT_URL", "http://localhost:6333")
    assert Settings().store.qdrant_api_key.get_secret_value() == SECRET


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_an_open_address_without_a_key_is_refused(monkeypatch, host):
    monkeypatch.setenv("QASERVE_HOST", host)
    with pytest.raises(SettingsError, match=f"^QASERVE_HOST={host} .*: set QASERVE_API_KEY, or listen on 127.0.0.1$"):
        Settings()
    monkeypatch.setenv("QASERVE_API_KEY", SECRET)
    assert Settings().server.host == host


def test_an_empty_key_does_not_open_the_door(monkeypatch):
    monkeypatch.setenv("QASERVE_HOST", "0.0.0.0")
    monkeypatch.setenv("QASERVE_API_KEY", "")
    with pytest.raises(SettingsError, match="set QASERVE_API_KEY"):
        Settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_key(monkeypatch, host):
    monkeypatch.setenv("QASERVE_HOST", host)
    assert Settings().server.api_key is None


BAD = {
    "key without a server": {"QDRANT_API_KEY": SECRET},
    "bad port": {"API_KEY": SECRET, "PORT": "0"},
    "bad address": {"QDRANT_API_KEY": SECRET, "QDRANT_URL": "nonsense"},
}


@pytest.mark.parametrize("variables", BAD.values(), ids=BAD.keys())
def test_a_message_never_holds_a_secret(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(f"QASERVE_{name}", value)
    with pytest.raises(SettingsError, match=r"^QASERVE_") as caught:
        Settings()
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize("variables", BAD.values(), ids=BAD.keys())
def test_a_traceback_never_holds_a_secret(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(f"QASERVE_{name}", value)
    with pytest.raises(SettingsError, match=r"^QASERVE_") as caught:
        Settings()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_settings_can_be_printed_without_their_secrets(monkeypatch):
    monkeypatch.setenv("QASERVE_QDRANT_URL", "http://localhost:6333")
    monkeypatch.setenv("QASERVE_QDRANT_API_KEY", SECRET)
    monkeypatch.setenv("QASERVE_API_KEY", SECRET)
    settings = Settings()
    for section in (settings.store, settings.server):
        assert "api_key" in repr(section)
        assert SECRET not in f"{section!r} {section} {section.model_dump()} {section.model_dump_json()}"


# Where values come from


def test_an_empty_variable_counts_as_unset(monkeypatch):
    defaults = Settings()
    for name in setting_names():
        monkeypatch.setenv(name, "")
    settings = Settings()
    for section in ("store", "encoder", "read", "fit", "search", "server"):
        assert getattr(settings, section) == getattr(defaults, section)


def test_variables_without_the_prefix_are_not_read(monkeypatch):
    monkeypatch.setenv("PORT", "9")
    monkeypatch.setenv("HOST", "0.0.0.0")
    assert (Settings().server.port, Settings().server.host) == (8000, "127.0.0.1")


def test_settings_are_read_once_per_process(monkeypatch):
    before = get_settings()
    monkeypatch.setenv("QASERVE_PORT", "9")
    assert get_settings() is before
    get_settings.cache_clear()
    assert get_settings().server.port == 9


def test_every_section_is_read_and_every_setting_is_described():
    settings = Settings()
    assert {type(section) for section in vars(settings).values()} == set(Settings.SECTIONS)
    names = setting_names()
    assert len(names) == sum(len(section.model_fields) for section in Settings.SECTIONS)
    assert [name for name, description in names.items() if not description] == []


def test_the_variables_of_the_contract_are_there():
    contract = "DATA_DIR MODELS_DIR QDRANT_URL QDRANT_API_KEY ENCODER CORPUS API_URL API_KEY HOST PORT"
    assert {f"QASERVE_{name}" for name in contract.split()} <= set(setting_names())


def test_variables_that_nothing_reads_are_found(monkeypatch):
    assert unknown_variables() == []
    for name in ("QASERVE_PROT", "QASERVE_DATADIR", "QASERVE_PORT", "UNRELATED"):
        monkeypatch.setenv(name, "9")
    assert unknown_variables() == ["QASERVE_DATADIR", "QASERVE_PROT"]


def test_a_variable_that_is_read_is_not_called_unknown_whatever_its_case(monkeypatch):
    monkeypatch.setenv("QASERVE_Port", "9")
    read = Settings().server.port == 9
    assert read == ("QASERVE_Port" not in unknown_variables())


def test_more_copies_than_there_are_cannot_be_waited_for(monkeypatch):
    monkeypatch.setenv("QASERVE_QDRANT_REPLICAS", "2")
    monkeypatch.setenv("QASERVE_QDRANT_WRITE_CONSISTENCY", "2")
    assert Settings().store.qdrant_write_consistency == 2
    monkeypatch.setenv("QASERVE_QDRANT_WRITE_CONSISTENCY", "3")
    with pytest.raises(
        SettingsError, match="QASERVE_QDRANT_WRITE_CONSISTENCY=3 is more than QASERVE_QDRANT_REPLICAS=2"
    ):
        Settings()


# Addresses


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("localhost", "localhost"),
        ("10.0.0.7", "10.0.0.7"),
    ],
)
def test_local_addresses_can_be_opened_from_this_machine(monkeypatch, host, seen):
    monkeypatch.setenv("QASERVE_HOST", host)
    monkeypatch.setenv("QASERVE_UI_HOST", host)
    monkeypatch.setenv("QASERVE_API_KEY", SECRET)
    monkeypatch.setenv("QASERVE_PORT", "81")
    monkeypatch.setenv("QASERVE_UI_PORT", "82")
    server = Settings().server
    assert (server.local_api_url, server.local_page_url) == (f"http://{seen}:81", f"http://{seen}:82")
