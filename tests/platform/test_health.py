"""What gRPC probes are told, by a real client of the health service."""

import pytest

from csasn.errors import ConfigurationError
from csasn.platform.health import Health
from e2e.deployment import probe


def test_a_probe_hears_what_was_told_last_and_nobody_once_it_ended():
    with Health("127.0.0.1:0") as health:
        address = f"127.0.0.1:{health.port}"
        heard = [probe(address)]
        for ready in (True, False):
            health.tell(ready=ready)
            heard.append(probe(address))
    assert [*heard, probe(address)] == ["NOT_SERVING", "SERVING", "NOT_SERVING", "UNAVAILABLE"]


@pytest.mark.parametrize("address", ["127.0.0.1:taken", "nowhere", "192.0.2.1:9"])
def test_an_address_that_cannot_be_had_is_said(address):
    with Health("127.0.0.1:0") as other, pytest.raises(ConfigurationError, match="--health: nothing can listen at"):
        Health(address.replace("taken", str(other.port)))
