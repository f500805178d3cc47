import json
import os
import socket
from pathlib import Path

import pytest

from deploy.local.ports import EPHEMERAL_RANGE, LOOPBACK, choose_ports, is_free, require_free
from deploy.local.problem import StackError


def test_ports_are_free_distinct_recorded_and_kept(tmp_path: Path) -> None:
    record = tmp_path / "ports.json"
    ports = choose_ports(record, ["a", "b", "c"])
    assert len(set(ports.values())) == 3
    assert all(is_free(port) for port in ports.values())
    assert json.loads(record.read_text()) == ports
    assert choose_ports(record, ["a", "b", "c"]) == ports


def test_a_new_name_leaves_the_recorded_ports_alone(tmp_path: Path) -> None:
    record = tmp_path / "ports.json"
    before = choose_ports(record, ["a"])
    after = choose_ports(record, ["a", "b"])
    assert after["a"] == before["a"]
    assert set(after) == {"a", "b"}


def test_ports_lie_below_the_ephemeral_range(tmp_path: Path) -> None:
    lowest_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
    names = [str(number) for number in range(40)]
    assert max(choose_ports(tmp_path / "ports.json", names).values()) < lowest_ephemeral


@pytest.mark.parametrize("address", [LOOPBACK, "0.0.0.0"])  # noqa: S104 for this test only
def test_a_taken_port_is_named_with_its_holder_and_the_remedy(address: str) -> None:
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(StackError) as raised:
            require_free({"pg-a": port}, ["pg-a"])
    message = str(raised.value)
    assert f"port {port}" in message
    assert "pg-a" in message
    assert f"process {os.getpid()}" in message
    assert "./dev reset" in message


def test_a_port_whose_server_just_closed_a_connection_counts_as_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)):
            accepted, _ = server.accept()
            accepted.close()
    assert is_free(port)
