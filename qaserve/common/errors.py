"""Every error that qaserve raises on purpose.

QaserveError
├── UsageError              an invalid question, option or request
│   ├── SettingsError       a QASERVE_* variable with a bad value
│   └── TooLargeError       a request with more bytes or questions than are taken
├── AccessError             the API key is missing or wrong
│   └── ForbiddenError      the key may ask, but change nothing
├── LimitError              this caller has asked for more than its share
├── BusyError               too many are asking at once, or the answer took too long
├── ConflictError           what was asked for does not go with what is there or going on now
│   └── QualityError        a new build finds clearly less than the live one
├── NotFoundError           a pair, cluster, build or corpus that is not there
│   └── BuildNotFoundError  a build that is not there, or was deleted while it was read
├── CorpusError             input from which no pair can be read
├── FetchError              the public corpus could not be downloaded and verified
├── EncoderError            an encoder that is missing, altered or gives unusable vectors
│   ├── EncoderMismatchError  vectors in the store came from another encoder
│   └── ExportError         a model that has no ONNX form with the same vectors
├── BundleError             a trained model on disk that is missing, corrupt or of another build
├── StoreError              Qdrant cannot be used
│   ├── DamagedBuildError   the points of a build are not as they were sealed
│   ├── StoreLockedError    another process changes the corpus
│   ├── StoreUnreachableError  the server does not answer
│   ├── StoreRefusedError   the server refuses the key
│   └── StoreWriteError     the disk is full, read-only or failing
└── ServiceError            an API that this process calls does not answer, or answers nonsense

Third-party errors become one of these at the edge, `from` the original. Each has a short machine-readable code, an
HTTP status and an exit code (`TABLE`), says what happened with which value, and carries a hint: what to do about it.
"""

from typing import NamedTuple


class QaserveError(Exception):
    """Root of the tree. `message` says what happened, `hint` what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep message and hint apart, so that each front can lay them out."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after: float | None = None
        """Seconds after which a retry may help; None: unknown."""

    @property
    def kind(self) -> "ErrorKind":
        """The row of `TABLE` for this error."""
        return TABLE[type(self)]


class UsageError(QaserveError):
    """An invalid question, option or request."""


class SettingsError(UsageError):
    """A QASERVE_* variable with a bad value."""


class TooLargeError(UsageError):
    """A request with more bytes or questions than are taken."""


class AccessError(QaserveError):
    """The API key is missing or wrong."""


class ForbiddenError(AccessError):
    """The key may ask, but change nothing."""


class LimitError(QaserveError):
    """This caller has asked for more than its share."""


class BusyError(QaserveError):
    """Too many are asking at once, or the answer took too long."""


class ConflictError(QaserveError):
    """What was asked for does not go with what is there or going on now."""


class QualityError(ConflictError):
    """A new build finds clearly less than the live one."""


class NotFoundError(QaserveError):
    """A pair, cluster, build or corpus that is not there."""


class BuildNotFoundError(NotFoundError):
    """A build that is not there, or was deleted while it was read."""


class CorpusError(QaserveError):
    """Input from which no pair can be read."""


class FetchError(QaserveError):
    """The public corpus could not be downloaded and verified."""


class EncoderError(QaserveError):
    """An encoder that is missing, altered or gives unusable vectors."""


class EncoderMismatchError(EncoderError):
    """The vectors in the store came from another encoder than the one set."""


class ExportError(EncoderError):
    """A model that has no ONNX form, or one whose vectors differ from torch's."""


class BundleError(QaserveError):
    """A trained model on disk that is missing, corrupt or belongs to another build."""


class StoreError(QaserveError):
    """Qdrant cannot be used."""


class DamagedBuildError(StoreError):
    """The points of a build are not as they were sealed, or another version of the engine wrote them."""


class StoreLockedError(StoreError):
    """Another process changes the corpus."""


class StoreUnreachableError(StoreError):
    """The Qdrant server does not answer."""


class StoreRefusedError(StoreError):
    """The Qdrant server refuses the key."""


class StoreWriteError(StoreError):
    """The disk is full, read-only or failing."""


class ServiceError(QaserveError):
    """An API that this process calls does not answer, or answers nonsense."""


class ErrorKind(NamedTuple):
    """How an error is told to a program."""

    code: str
    status: int
    exit_code: int


TABLE: dict[type[QaserveError], ErrorKind] = {
    QaserveError: ErrorKind("error", 500, 1),
    UsageError: ErrorKind("invalid_request", 422, 2),
    SettingsError: ErrorKind("invalid_setting", 500, 2),
    TooLargeError: ErrorKind("too_large", 413, 2),
    AccessError: ErrorKind("unauthorized", 401, 1),
    ForbiddenError: ErrorKind("forbidden", 403, 1),
    LimitError: ErrorKind("rate_limited", 429, 1),
    BusyError: ErrorKind("busy", 503, 1),
    ConflictError: ErrorKind("conflict", 409, 1),
    QualityError: ErrorKind("quality_dropped", 409, 1),
    NotFoundError: ErrorKind("not_found", 404, 1),
    BuildNotFoundError: ErrorKind("build_not_found", 404, 1),
    CorpusError: ErrorKind("invalid_corpus", 422, 1),
    FetchError: ErrorKind("fetch_failed", 502, 1),
    EncoderError: ErrorKind("encoder_unavailable", 503, 1),
    EncoderMismatchError: ErrorKind("encoder_mismatch", 409, 1),
    ExportError: ErrorKind("encoder_not_exported", 503, 1),
    BundleError: ErrorKind("bundle_unusable", 503, 1),
    StoreError: ErrorKind("store_failed", 503, 1),
    DamagedBuildError: ErrorKind("build_damaged", 503, 1),
    StoreLockedError: ErrorKind("store_locked", 409, 1),
    StoreUnreachableError: ErrorKind("store_unreachable", 503, 1),
    StoreRefusedError: ErrorKind("store_refused", 503, 1),
    StoreWriteError: ErrorKind("store_write_failed", 507, 1),
    ServiceError: ErrorKind("service_failed", 502, 1),
}
