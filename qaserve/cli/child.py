"""Processes that a command starts and keeps running, and the ports that they listen on."""

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from qaserve.cli.base import err
from qaserve.common.errors import ServiceError, SettingsError

START_SECONDS = 120
STOP_SECONDS = 10
POLL_SECONDS = 0.2
RESTARTS = 3
RESTART_SECONDS = 600
"""A child that ends more than `RESTARTS` times within this is not started again."""


class Child:
    """A process that must keep running, in a group of its own, so that Ctrl-C reaches only us."""

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], handles: Sequence[int], secret: bytes
    ) -> None:
        """Start it.

        Args:
            name: What messages call it.
            command: What it runs.
            environment: Its variables.
            handles: Open files that it inherits.
            secret: The first line of its stdin, which then stays open until this process ends; empty: it has no stdin.
        """
        self.name, self._command, self._environment = name, command, environment
        self._handles, self._secret = handles, secret
        self._ends: list[float] = []
        self.start()

    def start(self) -> None:
        """Start it."""
        self.process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE if self._secret else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._handles,
        )
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended already, which `keep_running` will find
                self.process.stdin.write(self._secret + b"\n")
                self.process.stdin.flush()

    def terminate(self) -> None:
        """Tell it to stop, and go on."""
        self.process.terminate()

    def stop(self) -> None:
        """Stop it, politely first."""
        self.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close_stdin()

    def _close_stdin(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def check(self) -> None:
        """Raise ServiceError if it has stopped."""
        if self.process.poll() is not None:
            raise ServiceError(
                f"the {self.name} stopped with exit code {self.process.returncode}", hint="Its message is above."
            )

    def keep_running(self) -> bool:
        """Start it again if it has stopped; gives whether it had.

        Raises:
            ServiceError: It stopped too often.
        """
        if self.process.poll() is None:
            return False
        now = time.monotonic()
        self._ends = [*(end for end in self._ends if now - end < RESTART_SECONDS), now]
        if len(self._ends) > RESTARTS:
            raise ServiceError(
                f"the {self.name} stopped {len(self._ends)} times within {RESTART_SECONDS // 60} minutes, the last "
                f"time with exit code {self.process.returncode}",
                hint="Its message is above.",
            )
        err.print(
            f"[yellow]The {self.name} stopped with exit code {self.process.returncode}. It is started again "
            f"({len(self._ends)} of at most {RESTARTS} times).[/]"
        )
        self._close_stdin()
        self.start()
        return True

    def wait_for(self, url: str) -> None:
        """Wait until it answers."""
        import httpx

        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with suppress(httpx.HTTPError):
                if httpx.get(url, timeout=5).is_success:
                    return
            time.sleep(POLL_SECONDS)
        raise ServiceError(
            f"the {self.name} at {url} did not answer within {START_SECONDS} seconds", hint="Try `qaserve doctor`."
        )


@contextmanager
def child(
    name: str, command: list[str], environment: Mapping[str, str], handles: Sequence[int] = (), secret: bytes = b""
) -> Iterator[Child]:
    """A process that is stopped on leaving."""
    made = Child(name, command, environment, handles, secret)
    try:
        yield made
    finally:
        made.stop()


def check_port(setting: str, host: str, port: int) -> None:
    """Raise SettingsError unless it can be listened on."""
    bound_socket(setting, host, port).close()


def bound_socket(setting: str, host: str, port: int) -> socket.socket:
    """A socket that has the address, and does not listen yet. Raises SettingsError where it is taken."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise SettingsError(
            f"{setting}={port}: {host}:{port} cannot be listened on: {error.strerror}",
            hint=f"Stop what listens there, or set {setting} to another port.",
        ) from error
    return bound
