"""What lies around every request: who it was sent to, how much of it is read, what its answer says to a browser."""

import logging
import re
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qaserve.api.errors import reply
from qaserve.api.uploads import FORM, LINES, media_type
from qaserve.service.metrics import Metrics
from qaserve.settings import ServerSettings

LOG = logging.getLogger("qaserve.api")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
NOTHING_LOADED = "default-src 'none'; frame-ancestors 'none'"
OWN_FILES = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'"
)
DOCUMENTATION = ("/docs", "/redoc")
"""Pages that load scripts, all of them from this API."""
UPLOADS = frozenset({"/v1/ingest", "/v1/ingest/preview"})
"""They count their bytes themselves, against a bound of their own."""
UNKNOWN_ROUTE, OTHER_METHOD = "unknown", "OTHER"
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITES = frozenset({"", "same-origin", "none"})
"""Values of Sec-Fetch-Site of a request that no other site caused; programs send none."""
BODY_TYPES = frozenset({"application/json", FORM, *LINES})
"""text/plain and URL-encoded forms are not among them: a browser sends those for any page, without asking first."""
HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\s:@/\[\]]+))(?::\d{1,5})?")


class RequestMiddleware:
    """Refuses requests for another host, changes from another origin, and bodies of other types or over the limit.

    It also adds headers, and counts and logs every request.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, max_body_bytes: int, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app, self._most, self._metrics = app, max_body_bytes, metrics
        self._hosts, self._origins = settings.host_names, frozenset(settings.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_out(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, scope["path"])
            await send(message)

        try:
            headers = Headers(scope=scope)
            if _name_of(headers.get("host", "")) not in self._hosts:
                await _refuse_host(headers.get("host", ""))(scope, receive, send_out)
            elif scope["method"] not in SAFE_METHODS and not self._may_change(headers):
                await _refuse_origin(headers)(scope, receive, send_out)
            elif scope["method"] not in SAFE_METHODS and not _readable(headers):
                await _refuse_type(headers)(scope, receive, send_out)
            else:
                await self._app(scope, receive if scope["path"] in UPLOADS else self._bounded(receive), send_out)
        finally:
            self._tell(scope, status, time.perf_counter() - started)

    def _may_change(self, headers: Headers) -> bool:
        """Whether no page of another origin sent this: a browser lets any page send a simple POST."""
        origin = headers.get("origin")
        if "*" in self._origins:
            return True
        if origin is None:
            return headers.get("sec-fetch-site", "") in OWN_SITES
        return origin in self._origins or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()

    def _bounded(self, receive: Receive) -> Receive:
        seen = 0

        async def receive_some() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise HTTPException(413, f"the request has more than {self._most:,} bytes")
            return message

        return receive_some

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)  # not the path: that has no end of values
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        fields = {"method": method, "route": route, "status": status, "ms": round(1e3 * seconds, 1)}
        LOG.info("%(method)s %(route)s %(status)s %(ms)s ms", fields, extra=fields)


def _name_of(host: str) -> str:
    """The name in a Host header, without port, in small letters; empty where the header is not a host."""
    parts = HOST.fullmatch(host.lower())
    return "" if parts is None else parts["address"] or parts["name"]


def _readable(headers: Headers) -> bool:
    """Whether the body, if there is one, has a type that is taken."""
    kind = media_type(headers)
    has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    return kind in BODY_TYPES or not (kind or has_body)


def _refuse_host(host: str) -> ASGIApp:
    return reply(
        421,
        "wrong_host",
        f"this service is not known as {host[:100]!r}",
        "Call it by the address it listens on, or name the host in QASERVE_ALLOWED_HOSTS.",
    )


def _refuse_origin(headers: Headers) -> ASGIApp:
    origin = headers.get("origin") or f"Sec-Fetch-Site: {headers.get('sec-fetch-site')}"
    return reply(
        403,
        "foreign_origin",
        f"a page of another origin sent this request ({origin[:100]!r})",
        "Name its origin in QASERVE_CORS_ORIGINS if its pages may call this API.",
    )


def _refuse_type(headers: Headers) -> ASGIApp:
    return reply(
        415,
        "unsupported_type",
        f"a body of type {media_type(headers)[:100]!r} is not taken",
        f"Send application/json, {LINES[0]}, or {FORM} with a file.",
    )


def _add_headers(message: Message, path: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", OWN_FILES if path in DOCUMENTATION else NOTHING_LOADED)
