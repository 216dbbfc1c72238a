"""Settings, one small class per concern, all read from QASERVE_* variables and nowhere else."""

import os
from functools import cache
from pathlib import Path
from typing import Self, TypedDict

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from qaserve.common.errors import SettingsError
from qaserve.schemas.params import (
    LOOPBACK,
    MAX_ASKED_CHARS,
    MAX_HITS,
    MAX_TITLE,
    MAX_TOP_K,
    NAME_RULE,
    CorpusName,
    DriftMode,
    EncoderBackend,
    HttpUrl,
    RankForm,
    SearchParams,
)

PREFIX = "QASERVE_"
MAX_WORKERS = 64
RENAMED = {"QASERVE_ANCHOR": "QASERVE_REGULARIZATION"}
"""Variables of earlier versions."""


class _Section(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )


class StoreSettings(_Section):
    """Where pairs and builds live."""

    data_dir: Path = Field(Path("data"), description="Folder of the embedded Qdrant and of downloads.")
    models_dir: Path = Field(Path("models"), description="Folder of the trained bundles, one per build.")
    hnsw_pairs: int = Field(
        50_000,
        ge=1,
        description="From this number of pairs, the embedded Qdrant searches by HNSW graphs; below it, exactly.",
    )
    qdrant_url: HttpUrl | None = Field(None, description="Use this Qdrant server instead of the embedded one.")
    qdrant_api_key: SecretStr | None = Field(None, description="Key for that server.")
    qdrant_read_api_key: SecretStr | None = Field(
        None, description="Key for that server that may only read; questions use it where it is set."
    )
    qdrant_timeout: int = Field(10, ge=1, le=600, description="Seconds until an attempt at that server is given up.")
    qdrant_attempts: int = Field(4, ge=1, le=20, description="How often a read or an upsert is tried there.")
    qdrant_budget: float = Field(15.0, gt=0, le=600, description="Seconds for all attempts together.")
    qdrant_green: float = Field(300.0, ge=0, le=86_400, description="Seconds that a build may be indexed there.")
    qdrant_shards: int | None = Field(None, ge=1, description="Shards of a build there. Unset: the server decides.")
    qdrant_replicas: int | None = Field(None, ge=1, description="Copies of each shard. Unset: the server decides.")
    qdrant_write_consistency: int | None = Field(
        None, ge=1, description="Copies that must have a write before it counts. Unset: the server decides."
    )
    qdrant_on_disk: bool = Field(False, description="Keep vectors and payload on that server's disk, not in memory.")
    qdrant_quantized: bool = Field(False, description="Search there over vectors of bytes; scores stay exact.")
    lock_wait: float = Field(
        5.0,
        ge=0,
        le=3_600,
        description="Seconds a command or activation waits for another change of the corpus; a job waits at least 600.",
    )
    corpus: CorpusName | None = Field(None, description="Name of the corpus. Unset: the only one besides the sample.")

    @model_validator(mode="after")
    def _key_needs_server(self) -> Self:
        for name in ("qdrant_api_key", "qdrant_read_api_key"):
            if getattr(self, name) is not None and self.qdrant_url is None:
                raise ValueError(
                    f"QASERVE_{name.upper()} is set but QASERVE_QDRANT_URL is not: the embedded Qdrant has no key"
                )
        return self

    @model_validator(mode="after")
    def _writes_fit_replicas(self) -> Self:
        needed, copies = self.qdrant_write_consistency, self.qdrant_replicas
        if needed is not None and copies is not None and needed > copies:
            raise ValueError(
                f"QASERVE_QDRANT_WRITE_CONSISTENCY={needed} is more than QASERVE_QDRANT_REPLICAS={copies}: "
                "no write could ever count"
            )
        return self


class EncoderSettings(_Section):
    """Which model turns text into vectors."""

    encoder: str = Field("minilm", min_length=1, description="minilm, mpnet, nomic, a model id, or a model folder.")
    encoder_backend: EncoderBackend = Field(
        "onnx",
        description="onnx (exported once; starts fast), openvino (the same export; an ingest is faster where the "
        "processor has bfloat16) or torch (as sentence-transformers runs it).",
    )
    encoder_batch: int = Field(
        8,
        ge=1,
        le=1024,
        description="Texts per forward pass; a question waits for one at most while others are encoded.",
    )


class ReadSettings(_Section):
    """What a reader accepts."""

    max_line_bytes: int = Field(8 << 20, ge=1024, description="A longer line is rejected, unread.")
    max_question_chars: int = Field(4_000, ge=1, description="A longer question is rejected.")
    max_answer_chars: int = Field(2_000_000, ge=1, description="A longer answer is rejected.")


class FitSettings(_Section):
    """How a build's model is made."""

    regularization: float | None = Field(
        None, gt=0, le=1e9, description="λ: how strongly each W is held to the identity. Unset: tuned."
    )
    rank_form: RankForm = Field("participation", description="Effective rank that sets the number of clusters.")
    max_clusters: int = Field(2_000, ge=1, description="Upper bound on the number of clusters.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of K-means and of the trials.")
    tune_pairs: int = Field(
        20_000, ge=0, description="Above this size, ingest reuses the live hyperparameters; `qaserve fit` tunes them."
    )
    precision: float = Field(
        0.75,
        gt=0,
        lt=1,
        description="Target precision of answers not abstained, assuming half of all questions are answerable.",
    )
    drift: DriftMode = Field("recluster", description="When the pairs have drifted: recluster, or only recommend it.")
    gate_tolerance: float = Field(
        0.02, ge=0, le=1, description="Maximum MRR drop before a new build is blocked; `--force` overrides."
    )


class SearchSettings(SearchParams, _Section):
    """Parameters of a question where it does not give them. What is unset here comes from the build."""

    model_config = _Section.model_config


class KeepOptions(TypedDict):
    """What a log of questions takes."""

    keeps: bool
    days: int


class ClientOptions(TypedDict):
    """What a client of the API is made with."""

    url: str
    key: str | None
    timeout: float


class ServerSettings(_Section):
    """Addresses of the API and of the page."""

    host: str = Field("127.0.0.1", min_length=1, description="Address that the API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    workers: int = Field(1, ge=1, le=MAX_WORKERS, description="Processes that serve the API over one port.")
    ui_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that the page listens on. The page asks for no key."
    )
    ui_port: int = Field(8501, ge=1, le=65535, description="Port of the page.")
    api_url: HttpUrl | None = Field(None, description="API that the page and `qaserve ask` talk to.")
    api_key: SecretStr | None = Field(None, description="Key that API callers must send; needed off loopback.")
    write_key: SecretStr | None = Field(
        None, description="Key that changing something needs. Unset: QASERVE_API_KEY does."
    )
    reports_dir: Path = Field(
        Path("reports"),
        description="Folder of your experiments' reports. Without any the page shows those of the public corpus.",
    )
    mcp_http: bool = Field(False, description="Serve agents over MCP at /mcp of the API too.")
    mcp_write: bool = Field(False, description="Let agents add pairs; /mcp then needs the key for changing.")
    allowed_hosts: str = Field(
        "", description="Names, with commas, that callers may know API and page by, besides their hosts and loopback."
    )
    cors_origins: str = Field("", description="Origins, with commas, whose pages a browser may let call the API.")
    log_json: bool = Field(False, description="Log one JSON object a line.")
    log_questions: bool = Field(False, description="Log the text of questions too.")
    keep_questions: bool = Field(
        False, description="Keep questions that were abstained on or answered unhelpfully, for `qaserve gaps`."
    )
    keep_days: int = Field(90, ge=1, le=3_650, description="Days after which a kept question is deleted.")
    title: str = Field(
        "", max_length=MAX_TITLE, description="What the page says is searched. Unset: the title or name of the corpus."
    )
    notice: str = Field("", max_length=500, description="A line shown on top of the page.")
    api_timeout: float = Field(30.0, gt=0, le=600, description="Seconds until a call to that API is given up.")

    @model_validator(mode="after")
    def _open_address_needs_key(self) -> Self:
        if self.host not in LOOPBACK and self.api_key is None:
            raise ValueError(
                f"QASERVE_HOST={self.host} is open to other machines: set QASERVE_API_KEY, or listen on 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _write_key_needs_the_other(self) -> Self:
        if self.write_key is not None and self.api_key is None:
            raise ValueError("QASERVE_WRITE_KEY is set but QASERVE_API_KEY is not: set a key for asking too")
        return self

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.ui_port:
            raise ValueError(f"QASERVE_PORT and QASERVE_UI_PORT are both {self.port}: API and page need one each")
        return self

    @property
    def host_names(self) -> frozenset[str]:
        """Every name that the Host header of a request may hold, in small letters."""
        return LOOPBACK | {self.host.lower()} | {name.lower() for name in _listed(self.allowed_hosts)}

    @property
    def origins(self) -> list[str]:
        """Origins that may call from a browser."""
        return _listed(self.cors_origins)

    @property
    def local_api_url(self) -> str:
        """Address of an API started with these settings, seen from this machine."""
        return _local_url(self.host, self.port)

    @property
    def client(self) -> "ClientOptions":
        """How to reach QASERVE_API_URL, or else the API on this machine, with the key that may do more."""
        key = self.write_key or self.api_key
        secret = None if key is None else key.get_secret_value()
        return ClientOptions(url=self.api_url or self.local_api_url, key=secret, timeout=self.api_timeout)

    @property
    def keeping(self) -> "KeepOptions":
        """Whether and how long questions without an answer are kept."""
        return KeepOptions(keeps=self.keep_questions, days=self.keep_days)

    @property
    def local_page_url(self) -> str:
        """Address of a page started with these settings, seen from this machine."""
        return _local_url(self.ui_host, self.ui_port)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _local_url(host: str, port: int) -> str:
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not a bind
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


class LimitSettings(_Section):
    """What the API takes at once."""

    max_body_bytes: int = Field(1 << 20, ge=1024, description="A longer request is refused as it comes in.")
    max_asked_chars: int = Field(
        MAX_ASKED_CHARS, ge=1, le=MAX_ASKED_CHARS, description="Characters of a question that is asked."
    )
    max_top_k: int = Field(MAX_TOP_K, ge=1, le=MAX_TOP_K, description="Answers that may be asked for at once.")
    max_hits: int = Field(1_000, ge=1, le=MAX_HITS, description="Known questions that may vote.")
    max_questions: int = Field(32, ge=1, description="Questions in one request.")
    request_seconds: float = Field(30.0, gt=0, le=600, description="Seconds until a question is given up.")
    requests_per_minute: int = Field(6_000, ge=0, description="For each key, or address without one; 0: no limit.")
    queue: int = Field(128, ge=1, description="Questions that wait or are answered at once; for more it is busy.")
    batch: int = Field(32, ge=1, le=1024, description="Questions of several callers that are encoded together.")
    batch_window_ms: float = Field(
        2.0, ge=0, le=1000, description="How long a question waits for company, if others are being answered."
    )
    max_upload_bytes: int = Field(
        64 << 20, ge=1024, description="A larger upload of pairs is refused while it streams."
    )
    waiting_jobs: int = Field(8, ge=1, le=1000, description="Maximum queued ingest jobs.")


class Settings:
    """All sections. They are checked when this is made; a bad value raises SettingsError."""

    SECTIONS = (
        StoreSettings,
        EncoderSettings,
        ReadSettings,
        FitSettings,
        SearchSettings,
        ServerSettings,
        LimitSettings,
    )

    def __init__(self) -> None:
        """Read every section from the environment."""
        for old, new in RENAMED.items():
            if os.environ.get(old):
                raise SettingsError(f"{old} is set, and is called {new} now", hint=f"Set {new} instead of {old}.")
        try:
            self.store = StoreSettings()
            self.encoder = EncoderSettings()
            self.read = ReadSettings()
            self.fit = FitSettings()
            self.search = SearchSettings()
            self.server = ServerSettings()
            self.limits = LimitSettings()
        except ValidationError as error:
            raise _settings_error(error) from error


def _settings_error(error: ValidationError) -> SettingsError:
    first = error.errors(include_url=False)[0]
    name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else ""
    secret = "KEY" in name or ("URL" in name and "@" in str(first["input"]))  # an address may hold a password
    value = "" if not name or secret else f"={first['input']!r}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch":
        reason = f"this is not {'an address such as http://127.0.0.1:6333' if 'URL' in name else NAME_RULE}"
    return SettingsError(f"{name}{value}: {reason}" if name else reason, hint="docs/settings.md lists every setting.")


@cache
def get_settings() -> Settings:
    """Read the settings once per process."""
    return Settings()


def setting_names() -> dict[str, str]:
    """Every variable that is read, with its description."""
    return {
        PREFIX + name.upper(): field.description or ""
        for section in Settings.SECTIONS
        for name, field in section.model_fields.items()
    }


def unknown_variables() -> list[str]:
    """QASERVE_* variables that are set but that nothing reads: most often a typing mistake."""
    known = setting_names()
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
