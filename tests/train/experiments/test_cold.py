import pytest

from qaserve.common.errors import ServiceError
from train.experiments import cold


def test_a_process_is_measured_by_itself():
    _, small = cold._to_end("-c", "pass")
    _, large = cold._to_end("-c", "bytearray(64 << 20)")
    assert 1 << 20 < small < 64 << 20 < large


def test_a_command_that_fails_is_not_measured():
    with pytest.raises(ServiceError, match=r"-c raise SystemExit\(3\) ended with exit code 3"):
        cold._to_end("-c", "raise SystemExit(3)")
