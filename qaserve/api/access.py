"""Who may ask, and who may change something."""

import secrets
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from qaserve.errors import AccessError, ForbiddenError
from qaserve.settings import ServerSettings

Given = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


class Access:
    """The keys of a server. `read` and `write` are dependencies of its routes; without any key both let all pass."""

    def __init__(self, settings: ServerSettings) -> None:
        """Remember the keys: a write key may read too, and where there is none, the other one writes."""
        self._read, self._write = settings.api_key, settings.write_key

    def read(self, given: Given) -> None:
        """Raise AccessError unless the caller may ask."""
        if self._read is not None and not any(_same(given, key) for key in (self._read, self._write)):
            raise _refused()

    def write(self, given: Given) -> None:
        """Raise AccessError unless the caller may change something, ForbiddenError where it may only ask."""
        if self._write is None:
            self.read(given)
        elif not _same(given, self._write):
            if _same(given, self._read):
                raise ForbiddenError(
                    "this key may ask, but change nothing", hint="Use the key that QASERVE_WRITE_KEY is set to."
                )
            raise _refused()


def _same(given: HTTPAuthorizationCredentials | None, key: SecretStr | None) -> bool:
    token = given.credentials if given else ""
    return key is not None and secrets.compare_digest(token.encode(), key.get_secret_value().encode())


def _refused() -> AccessError:
    return AccessError(
        "the key is missing or wrong",
        hint="Set QASERVE_API_KEY; other programs send the header Authorization: Bearer KEY.",
    )
