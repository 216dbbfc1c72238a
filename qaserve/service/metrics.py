"""What Prometheus may know. One registry for each application, so that two in a process do not mix.

Where several processes serve (`qaserve serve --workers`), prometheus_client keeps the figures of all in the folder that
PROMETHEUS_MULTIPROC_DIR names; each process tells the sums, without figures of single processes such as their memory.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from qaserve.schemas.ask import AskResult

STAGES = ("encode", "route", "project", "search", "total")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters and histograms of one application."""

    def __init__(self) -> None:
        """Register everything."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "qaserve_requests", "Requests by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "qaserve_request_seconds", "Time of a request.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.queue = Gauge(
            "qaserve_queue_depth",
            "Questions waiting or being answered.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.batch = Histogram(
            "qaserve_batch_size", "Questions encoded together.", buckets=SIZES, registry=self.registry
        )
        self._stage_seconds = Histogram(
            "qaserve_stage_seconds", "Time of a stage of asking.", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self._abstentions = Counter(
            "qaserve_abstentions", "Questions that nothing here seems to answer.", registry=self.registry
        )
        self._build = Gauge(
            "qaserve_build_info",
            "1: the build that answered last.",
            ["build"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._last_build = ""

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def answered(self, result: AskResult) -> None:
        """Count an answered question."""
        times = result.timings_ms
        for stage in STAGES:
            self._stage_seconds.labels(stage).observe(1e-3 * getattr(times, stage))
        if result.confidence.abstained:
            self._abstentions.inc()
        if result.build != self._last_build:
            if self._last_build:
                self._build.labels(self._last_build).set(0)  # several processes cannot remove a label
            self._build.labels(result.build).set(1)
            self._last_build = result.build
