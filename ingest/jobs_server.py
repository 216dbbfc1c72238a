"""The jobs of one process, used by others on this machine: their methods are called over a Unix socket."""

import threading
from multiprocessing.managers import BaseManager, BaseProxy
from pathlib import Path
from typing import Any, cast

from ingest.jobs import Jobs
from qaserve.schemas.ingest import Preview
from qaserve.schemas.jobs import IngestOptions, Job, JobList

NAME = "jobs"


class RemoteJobs(BaseProxy):
    """What the API asks of `Jobs`. Errors are raised here as they were there."""

    _exposed_ = ("listed", "get", "open_incoming", "close_incoming", "preview", "submit", "retry", "cancel")
    receiving = Jobs.receiving

    def listed(self) -> JobList:
        """See `Jobs`."""
        return cast("JobList", self._called("listed"))

    def get(self, job: str) -> Job:
        """See `Jobs`."""
        return cast("Job", self._called("get", job))

    def open_incoming(self, sender: int) -> Path:
        """See `Jobs`."""
        return cast("Path", self._called("open_incoming", sender))

    def close_incoming(self, folder: Path) -> None:
        """See `Jobs`."""
        self._called("close_incoming", folder)

    def preview(self, file: Path, options: IngestOptions) -> Preview:
        """See `Jobs`."""
        return cast("Preview", self._called("preview", file, options))

    def submit(self, file: Path, options: IngestOptions) -> Job:
        """See `Jobs`."""
        return cast("Job", self._called("submit", file, options))

    def retry(self, job: str) -> Job:
        """See `Jobs`."""
        return cast("Job", self._called("retry", job))

    def cancel(self, job: str) -> Job:
        """See `Jobs`."""
        return cast("Job", self._called("cancel", job))

    def close(self) -> None:
        """Nothing: they go on where they are."""

    def _called(self, method: str, *given: object) -> Any:
        return self._callmethod(method, given)


def serve_jobs(jobs: Jobs, address: Path, secret: bytes) -> None:
    """Let processes that know the secret use the jobs for as long as this process runs."""

    class Manager(BaseManager):
        """Has these jobs."""

    Manager.register(NAME, lambda: jobs, proxytype=RemoteJobs)
    server = Manager(str(address), secret).get_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()


def remote_jobs(address: Path, secret: bytes) -> RemoteJobs:
    """The jobs that another process serves at an address."""

    class Manager(BaseManager):
        """Finds them."""

    Manager.register(NAME, proxytype=RemoteJobs)
    manager = Manager(str(address), secret)
    manager.connect()
    return cast("RemoteJobs", getattr(manager, NAME)())
