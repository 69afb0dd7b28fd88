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
    assert refused.value.message.startswith(
        "gateway.mroute_table, gateway.ipv6, dataplane.receive_buffer can only be changed"
    )


def test_other_keys_are_not_refused():
    changed = parse(BASE.format("channel_limit = 5", ""))
    assert refuse_fixed(parse(BASE.format("", "")), changed, "gateway", ("mroute_table",)) is None


@pytest.mark.parametrize(
    ("lines", "movable", "named"),
    [
        ('engine = "tc"', (), "dataplane.engine"),
        ('engine = "tc"', ("engine",), None),
        ("receive_cores = 2", ("engine",), "dataplane.receive_cores"),
        (
            'engine = "xdp"\nreceive_cores = 2\nsend_buffer = 65536',
            ("engine",),
            "dataplane.receive_cores, dataplane.se",
        ),
    ],
)
def test_of_the_engine_only_what_a_role_can_move_is_taken_over(lines, movable, named):
    changed = parse(BASE.format("", f"[dataplane]\n{lines}\n"))
    if named is None:
        assert refuse_fixed(parse(BASE.format("", "")), changed, "gateway", (), movable=movable) is None
        return
    with pytest.raises(RefusedError) as refused:
        refuse_fixed(parse(BASE.format("", "")), changed, "gateway", (), movable=movable)
    assert refused.value.message.startswith(named)
