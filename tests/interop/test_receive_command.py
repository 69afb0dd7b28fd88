"""`amt-agent receive` as a user runs it, without root, against a small synthetic relay on the loopback."""

import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from ipaddress import ip_address

import pytest

from agent.protocol.wire import amt, group_packet
from agent.protocol.wire.groups import Query, RecordType, Report
from agent.protocol.wire.ip import IPPacket, UDPDatagram, encode_udp

SOURCE, GROUP = "198.51.100.7", "232.1.1.1"
SOURCE6, GROUP6 = "2001:db8::7", "ff3e::8000:1"
PROGRAM = [sys.executable, "-c", "from agent.cli import main; main()", "receive"]


def transport_stream(number):
    """Seven transport packets of one PID, numbered on."""
    head = b"\x47\x01\x00"
    return b"".join(
        (head + bytes((0x10 | (7 * number + part) % 16,))).ljust(188, bytes((number % 256,))) for part in range(7)
    )


def inner(payload, *, source=SOURCE, group=GROUP, port=5000):
    source, group = ip_address(source), ip_address(group)
    return IPPacket(source, group, 17, encode_udp(source, group, UDPDatagram(4000, port, payload)), ttl=9)


def is_leave(record):
    empties = record.type is RecordType.CHANGE_TO_INCLUDE and not record.sources
    return empties or record.type is RecordType.BLOCK_OLD_SOURCES


class SyntheticRelay(threading.Thread):
    """Answers as RFC 7450 says and sends a stream to whoever joined; `heard` keeps what gateways said."""

    def __init__(
        self, host="127.0.0.1", *, packets=lambda number: [inner(transport_stream(number))], limit=False, port=0
    ):
        super().__init__(daemon=True)
        self.host = ip_address(host)
        self.socket = socket.socket(socket.AF_INET6 if self.host.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.socket.settimeout(0.002)
        self.port = self.socket.getsockname()[1]
        self.heard = []
        self.failures = []
        self._packets = packets
        self._limit = limit
        self._macs = {}
        self._joined = {}
        self._ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()
        self.socket.close()
        assert self.failures == []

    def run(self):
        try:
            while not self._ended.is_set():
                self._listen()
                for gateway in self._joined:
                    for packet in self._packets(self._joined[gateway]):
                        self.socket.sendto(amt.MulticastData(packet.encode()).encode(), gateway)
                    self._joined[gateway] += 1
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failures.append(error)

    def _listen(self):
        try:
            data, gateway = self.socket.recvfrom(2000)
        except TimeoutError:
            return
        message = amt.decode(data)
        self.heard.append(message)
        match message:
            case amt.RelayDiscovery(nonce):
                self.socket.sendto(amt.RelayAdvertisement(nonce, self.host).encode(), gateway)
            case amt.Request(nonce):
                self._macs[gateway] = secrets.token_bytes(6)
                querier = ip_address("fe80::1" if message.mld else "10.0.0.1")
                query = group_packet.encode(Query(), querier)
                seen = (ip_address(gateway[0]), gateway[1])
                answer = amt.MembershipQuery(self._macs[gateway], nonce, query, limit=self._limit, gateway=seen)
                self.socket.sendto(answer.encode(), gateway)
            case amt.MembershipUpdate(mac, _, packet):
                assert mac == self._macs[gateway]
                report = group_packet.decode(packet).message
                assert isinstance(report, Report)
                if all(is_leave(record) for record in report.records):
                    self._joined.pop(gateway, None)
                else:
                    self._joined.setdefault(gateway, 0)
            case amt.Teardown():
                self._joined.pop(gateway, None)

    def kinds(self):
        return [message.type for message in self.heard]


def receive(*arguments, relay, timeout=30, **options):
    command = [*PROGRAM, *arguments, "--relay", str(relay.host), "--relay-port", str(relay.port)]
    return subprocess.run(command, check=False, capture_output=True, timeout=timeout, **options)


def test_a_stream_is_received_whole_and_left_in_order():
    with SyntheticRelay() as relay:
        done = receive(SOURCE, GROUP, "--seconds", "1", "--json", relay=relay)
        summary = json.loads(done.stdout)
        assert done.returncode == 0, done.stderr
        assert summary["packets"] > 50
        assert (summary["lost"], summary["media"], summary["ending"]) == (0, "mpeg-ts", "finished")
        assert (summary["relay"], summary["refused"]) == (f"127.0.0.1:{relay.port}", {})
        assert 0 < summary["join_latency"] < 1
        assert summary["first_packet_after"] >= summary["join_latency"]
        assert summary["flows"][0]["mpeg_ts"]["pids"] == 1
    first_update = next(message for message in relay.heard if isinstance(message, amt.MembershipUpdate))
    (record,) = group_packet.decode(first_update.packet).message.records
    assert (record.group, record.sources) == (ip_address(GROUP), (ip_address(SOURCE),))
    assert relay.kinds()[:3] == [
        amt.MessageType.RELAY_DISCOVERY,
        amt.MessageType.REQUEST,
        amt.MessageType.MEMBERSHIP_UPDATE,
    ]
    assert relay.kinds()[-2:] == [amt.MessageType.MEMBERSHIP_UPDATE, amt.MessageType.TEARDOWN]


def test_ipv6_channels_come_over_ipv6():
    with SyntheticRelay(
        "::1", packets=lambda number: [inner(transport_stream(number), source=SOURCE6, group=GROUP6)]
    ) as relay:
        done = receive(SOURCE6, GROUP6, "--port", "5000", "--seconds", "0.5", "--json", relay=relay)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost"] == 0


def test_ipv6_channels_come_over_ipv4():
    with SyntheticRelay(
        packets=lambda number: [inner(transport_stream(number), source=SOURCE6, group=GROUP6)]
    ) as relay:
        done = receive(SOURCE6, GROUP6, "--seconds", "0.5", "--json", relay=relay)
    assert done.returncode == 0, done.stderr
    assert next(message for message in relay.heard if isinstance(message, amt.Request)).mld


def test_any_source_is_joined_as_exclude_of_nothing():
    with SyntheticRelay(packets=lambda number: [inner(transport_stream(number), group="239.1.1.1")]) as relay:
        done = receive("*", "239.1.1.1", "--seconds", "0.3", relay=relay)
    assert done.returncode == 0, done.stderr
    first_update = next(message for message in relay.heard if isinstance(message, amt.MembershipUpdate))
    (record,) = group_packet.decode(first_update.packet).message.records
    assert record.type in {RecordType.CHANGE_TO_EXCLUDE, RecordType.MODE_IS_EXCLUDE}
    assert record.sources == ()


def test_what_is_not_the_channel_is_refused_and_counted():
    def packets(number):
        wrong_checksum = inner(transport_stream(number))
        broken = bytearray(wrong_checksum.payload)
        broken[100] ^= 1
        return [
            inner(transport_stream(number)),
            inner(b"other source", source="198.51.100.8"),
            inner(b"other group", group="232.1.1.2"),
            inner(b"other port", port=5001),
            IPPacket(ip_address(SOURCE), ip_address(GROUP), 17, bytes(broken)),
            IPPacket(ip_address(SOURCE), ip_address(GROUP), 1, b"icmp"),
        ]

    with SyntheticRelay(packets=packets) as relay:
        done = receive(SOURCE, GROUP, "--port", "5000", "--seconds", "0.5", "--json", relay=relay)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["lost"]) == (0, 0)
    count = summary["packets"]
    expected = {"not_subscribed": 2 * count, "other_port": count, "bad_udp_checksum": count, "not_udp": count}
    assert summary["refused"].keys() == expected.keys()
    assert all(abs(summary["refused"][reason] - expected[reason]) <= 2 for reason in expected)


def test_inner_fragments_are_put_together():
    def packets(number):
        whole = inner(transport_stream(number) * 2 if number % 16 == 0 else transport_stream(number))
        size = 480
        return [
            IPPacket(
                whole.source,
                whole.destination,
                17,
                whole.payload[start : start + size],
                identification=number % 65536,
                fragment_offset=start,
                more_fragments=start + size < len(whole.payload),
            )
            for start in range(0, len(whole.payload), size)
        ]

    with SyntheticRelay(packets=packets) as relay:
        done = receive(SOURCE, GROUP, "--seconds", "0.5", "--json", relay=relay)
    summary = json.loads(done.stdout)
    assert done.returncode == 0
    assert summary["fragments"]["reassembled"] == summary["packets"] > 20
    assert summary["media"] == "mpeg-ts"


def test_loss_in_the_stream_is_told():
    with SyntheticRelay(packets=lambda number: [] if number == 20 else [inner(transport_stream(number))]) as relay:
        done = receive(SOURCE, GROUP, "--seconds", "1", relay=relay)
    assert done.returncode == 0
    assert b"mpeg-ts, 7 lost" in done.stderr


def test_payloads_go_to_standard_output_and_nothing_else_does():
    with SyntheticRelay() as relay:
        done = receive(SOURCE, GROUP, "--seconds", "0.5", "--out", "-", "--json", "--verbose", relay=relay)
    assert done.returncode == 0
    count = len(done.stdout) // 1316
    assert count > 20
    assert done.stdout == b"".join(transport_stream(number) for number in range(count))
    assert json.loads(done.stderr[done.stderr.index(b"{") :])["packets"] == count


def test_payloads_go_to_a_file_complete(tmp_path):
    target = tmp_path / "stream.ts"
    with SyntheticRelay() as relay:
        done = receive(SOURCE, GROUP, "--seconds", "0.5", "--out", str(target), "--json", relay=relay)
    summary = json.loads(done.stdout)
    assert target.read_bytes() == b"".join(transport_stream(number) for number in range(summary["packets"]))


def test_payloads_go_to_a_udp_port_one_datagram_each():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player, SyntheticRelay() as relay:
        player.bind(("127.0.0.1", 0))
        player.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        player.settimeout(5)
        target = f"udp://127.0.0.1:{player.getsockname()[1]}"
        done = receive(SOURCE, GROUP, "--seconds", "0.3", "--out", target, relay=relay)
        assert done.returncode == 0
        assert [player.recv(2000) for _ in range(10)] == [transport_stream(number) for number in range(10)]


def test_a_player_that_goes_away_ends_the_session_without_failure():
    with SyntheticRelay() as relay:
        command = [*PROGRAM, SOURCE, GROUP, "--relay", "127.0.0.1", "--relay-port", str(relay.port), "--out", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.read(1316)
            process.stdout.close()
            assert process.wait(10) == 0
            assert b"Traceback" not in process.stderr.read()
        assert relay.kinds()[-1] is amt.MessageType.TEARDOWN


def test_a_player_that_pauses_holds_up_neither_the_tunnel_nor_the_end():
    with SyntheticRelay() as relay:
        command = [*PROGRAM, SOURCE, GROUP, "--relay", "127.0.0.1", "--relay-port", str(relay.port), "--out", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            lines = [process.stderr.readline() for _ in range(3)]  # seconds after its pipe of 64 kB was full
            assert all(b"mpeg-ts, 0 lost" in line for line in lines[1:])
            process.send_signal(signal.SIGINT)
            assert process.wait(15) == 0
            assert b"Fatal" not in process.stderr.read()
        assert relay.kinds()[-1] is amt.MessageType.TEARDOWN


def test_an_output_that_cannot_be_opened_is_a_local_failure(tmp_path):
    with SyntheticRelay() as relay:
        for target in (str(tmp_path), "udp://127.0.0.1", "udp://127.0.0.1:99999"):
            done = receive(SOURCE, GROUP, "--out", target, relay=relay)
            assert done.returncode == 3
            assert target.encode() in done.stderr
    assert relay.heard == []


def test_a_full_disk_is_a_local_failure():
    with SyntheticRelay() as relay:
        done = receive(SOURCE, GROUP, "--seconds", "5", "--out", "/dev/full", relay=relay)
    assert done.returncode == 3
    assert relay.kinds()[-1] is amt.MessageType.TEARDOWN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_and_tears_down(number):
    with SyntheticRelay() as relay:
        command = [*PROGRAM, SOURCE, GROUP, "--relay", "127.0.0.1", "--relay-port", str(relay.port), "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 10
            while amt.MessageType.MEMBERSHIP_UPDATE not in relay.kinds():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.stderr.readline()  # the first second's line
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=10)
        assert process.returncode == 0
        assert json.loads(stdout)["ending"] == "interrupted"
        assert b"Traceback" not in stderr
        assert relay.kinds()[-2:] == [amt.MessageType.MEMBERSHIP_UPDATE, amt.MessageType.TEARDOWN]


def test_nothing_coming_is_an_error_within_the_timeout():
    with SyntheticRelay(packets=lambda _number: []) as relay:
        before = time.monotonic()
        done = receive(SOURCE, GROUP, "--timeout", "1.5", relay=relay)
        assert done.returncode == 1
        assert time.monotonic() - before < 5
        assert f"nothing came through 127.0.0.1:{relay.port}".encode() in done.stderr
        assert relay.kinds()[-1] is amt.MessageType.TEARDOWN


def test_a_relay_that_is_full_makes_room_for_the_next_one():
    with SyntheticRelay("127.0.0.2", limit=True) as full, SyntheticRelay("127.0.0.3", port=full.port) as relay:
        done = receive(SOURCE, GROUP, "--relay", "127.0.0.2", "--seconds", "0.3", "--json", relay=relay)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["relay"] == f"127.0.0.3:{full.port}"
        assert summary["first_packet_after"] < 2


def test_a_silent_relay_makes_room_for_the_next_one():
    with SyntheticRelay("127.0.0.3") as relay:
        done = receive(SOURCE, GROUP, "--relay", "127.0.0.2", "--seconds", "0.3", "--json", relay=relay)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["relay"] == f"127.0.0.3:{relay.port}"


def test_a_relay_that_does_not_speak_discovery_is_asked_directly():
    with SyntheticRelay() as relay:
        done = receive(SOURCE, GROUP, "--no-discover", "--seconds", "0.3", relay=relay)
        assert done.returncode == 0, done.stderr
        assert relay.kinds()[0] is amt.MessageType.REQUEST


def test_data_of_a_stranger_is_not_taken():
    with SyntheticRelay() as relay, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        command = [*PROGRAM, SOURCE, GROUP, "--relay", "127.0.0.1", "--relay-port", str(relay.port), "--json"]
        command += ["--local-port", "42268", "--seconds", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while process.poll() is None:
                stranger.sendto(amt.MulticastData(inner(b"forged").encode()).encode(), ("127.0.0.1", 42268))
                time.sleep(0.01)
            stdout, _ = process.communicate(timeout=10)
    summary = json.loads(stdout)
    assert summary["unexpected_sender"] > 10
    assert (summary["lost"], summary["media"]) == (0, "mpeg-ts")


@pytest.mark.parametrize(
    "arguments",
    [
        ["198.51.100.7", "10.0.0.1"],
        ["224.1.1.1", GROUP],
        ["2001:db8::1", GROUP],
        ["*", GROUP],
        [SOURCE, "224.0.0.5"],
        [SOURCE, GROUP, "--port", "0"],
        [SOURCE, GROUP, "--seconds", "0"],
        [SOURCE, GROUP, "--relay", "no such name"],
        ["here", GROUP],
    ],
)
def test_wrong_usage_says_so_before_anything_is_sent(arguments):
    done = subprocess.run([*PROGRAM, *arguments], check=False, capture_output=True, timeout=20)
    assert done.returncode == 2
    assert b"Error" in done.stderr


def test_it_starts_where_python_knows_nothing_of_linux():
    """What Windows and macOS lack is taken away; constants and modules alike."""
    script = """
import socket, sys
for name in list(vars(socket)):
    if name.startswith(("AF_PACKET", "AF_NETLINK", "PACKET_", "NETLINK_", "SO_BINDTODEVICE", "SO_MARK", "IP_",
                        "SOCK_NONBLOCK", "SOCK_CLOEXEC", "SO_REUSEPORT", "MSG_ERRQUEUE", "MSG_DONTWAIT", "IPV6_RECV")):
        delattr(socket, name)
for name in ("fcntl", "pyroute2", "cffi", "termios", "resource", "grp", "pwd"):
    sys.modules[name] = None
from agent.cli import main
main()
"""
    with SyntheticRelay() as relay:
        command = [sys.executable, "-c", script, "receive", SOURCE, GROUP, "--seconds", "0.3"]
        command += ["--relay", "127.0.0.1", "--relay-port", str(relay.port)]
        done = subprocess.run(command, check=False, capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr
