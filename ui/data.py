"""What the page knows of the API. A rerun of the page repeats no request that was answered a moment ago."""

import streamlit as st

from qaserve.client import Client
from qaserve.records import AskRequest, AskResult, BuildInfo, ClusterInfo
from qaserve.settings import get_settings

EXAMPLES = 4


@st.cache_resource
def client() -> Client:
    """The one client of this process."""
    server = get_settings().server
    key = server.api_key.get_secret_value() if server.api_key else None
    return Client(server.api_url or server.local_api_url, key=key, timeout=server.api_timeout)


@st.cache_data(ttl=300, max_entries=256, show_spinner="Searching …")
def ask(request: str, build: str) -> AskResult:  # noqa: ARG001 - the build is part of the cache's key
    """The answer to a request, as JSON so that it can be a key."""
    return client().ask(AskRequest.model_validate_json(request))


@st.cache_data(ttl=5, show_spinner=False)
def live_build() -> BuildInfo | None:
    """The build that answers."""
    return next((build for build in client().builds().builds if build.live), None)


@st.cache_data(ttl=300, max_entries=8, show_spinner=False)
def clusters(build: str) -> tuple[ClusterInfo, ...]:  # noqa: ARG001 - the build is the cache's key
    """Every cluster of the live build."""
    return client().clusters().clusters


@st.cache_data(ttl=300, max_entries=8, show_spinner=False)
def example_questions(build: str) -> list[str]:
    """Real questions, from clusters far apart in size."""
    count = len(clusters(build))
    chosen = sorted({round(step * (count - 1) / EXAMPLES) for step in range(EXAMPLES)})
    details = [client().cluster(number) for number in chosen]
    return list(dict.fromkeys(min((pair.pair.question for pair in found.pairs), key=len) for found in details))
