"""What Prometheus is told."""

from types import SimpleNamespace

from qaserve.service.metrics import STAGES, Metrics


def test_the_build_that_answered_last_is_1_and_those_before_are_0():
    metrics = Metrics()
    for build in ("first", "second"):
        times, confidence = SimpleNamespace(**dict.fromkeys(STAGES, 1.0)), SimpleNamespace(abstained=False)
        metrics.answered(SimpleNamespace(timings_ms=times, confidence=confidence, build=build))
    text = metrics.text().decode()
    assert 'qaserve_build_info{build="first"} 0.0' in text
    assert 'qaserve_build_info{build="second"} 1.0' in text
