"""What only a restart can change is refused by name, and everything else is not."""

import pytest

from agent.service.config import parse
from agent.service.fixed_keys import refuse_fixed
from agent.service.port import RefusedError

BASE = 'role = "gateway"\n[gateway]\ndownstream = "lan0"\n{}\n[[gateway.relay]]\naddress = "192.0.2.1"\n{}'


def test_each_key_that_needs_a_restart_is_named():
    changed = BASE.format("mroute_table = 7\nipv6 = false", "[dataplane]\nreceive_buffer = 65536\n")
    with pytest.raises(RefusedError) as refused:
        refuse_fixed(parse(BASE.format("", "")), parse(changed), "gateway", ("mroute_table", "ipv6", "state_dir"))
    assert refused.value.code == "needs_restart"
    assert refused.value.message.startswith("gateway.mroute_table, gateway.ipv6, dataplane can only be changed")


def test_other_keys_are_not_refused():
    changed = parse(BASE.format("channel_limit = 5", ""))
    assert refuse_fixed(parse(BASE.format("", "")), changed, "gateway", ("mroute_table",)) is None
