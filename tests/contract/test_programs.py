"""What README and docs/serving.md show to programs and agents works as it stands there."""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from qaserve.api import create_app
from qaserve.settings import ServerSettings

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
README = (ROOT / "README.md").read_text(encoding="utf-8").split("## Programs and agents")[1].split("\n## ")[0]
SECTION = README + (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


@pytest.fixture
def url(engine, serve_app):
    return serve_app(create_app(engine, ServerSettings(mcp_http=True)))


def searched(server):
    async def run():
        async with Client(server) as client:
            return await client.call_tool("search_skills", {"question": "How do I make bread?"})

    result = asyncio.run(run())
    assert not result.is_error, result.content[0].text
    return result.structured_content["answers"][0]["topics"][1]


@pytest.mark.parametrize("number", [0, 1], ids=["sync", "async"])
def test_python(url, number):
    code = blocks("python")[number].replace(ADDRESS, url)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_curl(url):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    text = re.search(r"^(curl .*?)\n```", SECTION, re.MULTILINE | re.DOTALL)[1]
    command = shlex.split(text.replace(ADDRESS, url).replace("\\\n", ""))
    document = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert document["trace"]["filters"]["topics"] == ["Data Processing"]


def test_an_agent_over_stdio(url):
    server = json.loads(blocks("json")[0])["mcpServers"]["qaserve"]
    assert server.pop("command").endswith("/qaserve")
    environment = {name: value.replace(ADDRESS, url) for name, value in server["env"].items()}
    arguments = ["-m", "qaserve", *server["args"]]
    assert searched(StdioServerParameters(command=sys.executable, args=arguments, env=environment, cwd=ROOT)) == "bread"


def test_an_agent_over_http(url):
    server = json.loads(blocks("json")[1])["mcpServers"]["qaserve"]

    async def run():
        async with (
            create_mcp_http_client(headers=server["headers"]) as http,
            Client(streamable_http_client(server["url"].replace(ADDRESS, url), http_client=http)) as client,
        ):
            return [tool.name for tool in (await client.list_tools()).tools]

    assert "search_skills" in asyncio.run(run())
