"""The page's server: Streamlit, with the policies that Streamlit does not send itself. `streamlit run` finds `app`."""

from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.starlette import App

# Streamlit starts with a script in its page, and Vega compiles charts: without both "unsafe" of scripts neither works.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class PagePolicies:
    """Sends `HEADERS` with every response, and refuses a websocket that a page of another origin opens.

    Streamlit alone takes websockets of any page on this machine, whatever its port. A client that is no browser sends
    no Origin and is taken.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap Streamlit."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket" and not _own_origin(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008, "reason": "The websocket takes only its own origin."})
            return

        async def send_with_policies(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_policies)


def _own_origin(headers: Headers) -> bool:
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is None or origin in {f"http://{host}", f"https://{host}"}


app = App(Path(__file__).with_name("app.py"), middleware=[Middleware(PagePolicies)])
