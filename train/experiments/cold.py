"""The experiment behind `qaserve bench cold`: how long commands take from their start, beside bare Python."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import IO, cast

import httpx
from pydantic import Field

from qaserve.common.errors import ServiceError
from qaserve.common.progress import Advance
from qaserve.schemas.record import Record

ENGINES = "import onnxruntime, tokenizers, qdrant_edge"
LAUNCH = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
took = time.perf_counter() - started
print(json.dumps([os.waitstatus_to_exitcode(status), took, usage.ru_maxrss * 1024]))
"""
"""A small parent: the peak that the kernel counts for a child begins with the memory of its parent."""
WAIT_SECONDS = 120.0
MEASURES = 6


class Cold(Record):
    """One command."""

    name: str
    seconds: float = Field(description="Median, from the start of the process to its end or its first answer.")
    peak_bytes: int = Field(description="Largest resident memory of the runs.")


class ColdReport(Record):
    """Commands from their start, and what bare Python takes."""

    runs: int
    bare: tuple[Cold, ...]
    commands: tuple[Cold, ...]


def run(question: str, runs: int, advance: Advance) -> ColdReport:
    """Start every command a few times.

    Args:
        question: What to ask.
        runs: How often each is started.
        advance: Told 1 after each start.

    Raises:
        ServiceError: A command failed.
    """

    def measured(name: str, start: Callable[[], tuple[float, int]]) -> Cold:
        found = []
        for _ in range(runs):
            found.append(start())
            advance(1)
        return Cold(
            name=name, seconds=round(median(one for one, _ in found), 3), peak_bytes=max(peak for _, peak in found)
        )

    bare = (
        measured("python -c pass", lambda: _to_end("-c", "pass")),
        measured(f"python -c '{ENGINES}'", lambda: _to_end("-c", ENGINES)),
    )
    commands = (
        measured("qaserve --help", lambda: _to_end("-m", "qaserve", "--help")),
        measured("qaserve ask", lambda: _to_end("-m", "qaserve", "ask", question)),
        measured("qaserve serve, until ready", _api),
        measured("qaserve mcp, until its first answer", lambda: _mcp(question)),
    )
    return ColdReport(runs=runs, bare=bare, commands=commands)


def _to_end(*arguments: str) -> tuple[float, int]:
    """Seconds and peak bytes of a Python process that ends by itself."""
    command = [sys.executable, "-c", LAUNCH, sys.executable, *arguments]
    done = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, check=True)  # noqa: S603 - ours
    code, seconds, peak = json.loads(done.stdout)
    if code:
        raise ServiceError(f"{' '.join(arguments)} ended with exit code {code}", hint="Run it by itself.")
    return seconds, peak


def _environment() -> Mapping[str, str]:
    """Ours, but commands read the data themselves."""
    return {name: value for name, value in os.environ.items() if name != "QASERVE_API_URL"}


def _api() -> tuple[float, int]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**_environment(), "QASERVE_PORT": str(port), "QASERVE_HOST": "127.0.0.1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "qaserve", "serve"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while time.perf_counter() - started < WAIT_SECONDS and process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                    return time.perf_counter() - started, _peak(process.pid)
            time.sleep(0.02)
        raise ServiceError("qaserve serve did not become ready", hint="Run `qaserve serve` by itself.")
    finally:
        process.terminate()
        process.wait()


def _mcp(question: str) -> tuple[float, int]:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    call = {"name": "search_skills", "arguments": {"question": question}}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "qaserve", "mcp"],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    requests, replies = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    with process:
        requests.write("".join(json.dumps(one) + "\n" for one in messages).encode())
        requests.flush()
        for line in replies:
            reply = json.loads(line)
            if reply.get("id") == 2:
                result = time.perf_counter() - started, _peak(process.pid)
                if "error" in reply or reply["result"].get("isError"):
                    break
                requests.close()
                return result
        process.terminate()
    raise ServiceError("qaserve mcp gave no answer", hint="Run `qaserve ask` with the same question.")


def _peak(pid: int) -> int:
    """Peak resident bytes of a running process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
