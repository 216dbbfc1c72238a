"""What lies around the page: headers for browsers, and a websocket for its own origin only.

By itself Streamlit accepts a websocket from any page of this machine, whatever its port, and sends no policy. The
policy allows inline scripts and `eval`: Streamlit's charts and `st.html` need them. It allows nothing of another host.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host} wss://{host}; "
    "worker-src 'self' blob:; frame-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}
HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_:[]")


class PageGuard:
    """Adds headers to every reply; refuses a websocket that another origin opens."""

    def __init__(self, app: ASGIApp, origins: frozenset[str] = frozenset()) -> None:
        """Wrap an application. `origins`: further ones whose pages may open a websocket."""
        self._app, self._origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = Headers(scope=scope) if scope["type"] in {"http", "websocket"} else Headers()
        if scope["type"] == "websocket" and not self._own(headers):
            await send({"type": "websocket.close", "code": 1008, "reason": "another origin"})
            return

        async def send_out(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message, headers.get("host", ""))
            await send(message)

        await self._app(scope, receive, send_out)

    def _own(self, headers: Headers) -> bool:
        """Whether a websocket is opened by this page, or by a program, which names no origin."""
        origin = headers.get("origin")
        host = headers.get("host", "")
        return origin is None or origin in {f"http://{host}", f"https://{host}"} | self._origins


def _add_headers(message: Message, host: str) -> None:
    headers = MutableHeaders(scope=message)
    named = host if set(host.lower()) <= HOST_CHARACTERS else ""
    policy = POLICY.format(host=named) if named else POLICY.replace(" ws://{host} wss://{host}", "")
    for name, value in {**HEADERS, "Content-Security-Policy": policy}.items():
        headers.setdefault(name, value)
