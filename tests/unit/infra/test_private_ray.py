"""The proxy of a private Ray, its ports and its files."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pawcast_infra.local import private_ray
from pawcast_infra.local.private_ray import HAPROXY, free_ports, proxy_settings

PORTS = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
# Linux allows 107 characters. HAProxy appends `.PID.tmp` while it takes over a socket.
LONGEST_SOCKET = 107 - len(".4194304.tmp")
NODE = "0" * 56


@pytest.fixture(autouse=True)
def no_proxy_settings(monkeypatch):
    for name in (HAPROXY, "RAY_SERVE_HAPROXY_BINARY_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_haproxy_gets_its_own_ports_and_files():
    folder = Path("/tmp/pawcast-abcdefgh")
    settings = proxy_settings(folder)
    assert settings[HAPROXY] == "1"
    assert len({settings[port] for port in PORTS}) == len(PORTS)
    paths = {Path(value) for value in settings.values() if not value.isdecimal()}
    assert all(path.is_relative_to(folder) for path in paths)
    # Ray adds a folder with the id of the node.
    assert all(len(str(path.parent / NODE / path.name)) <= LONGEST_SOCKET for path in paths)


@pytest.mark.parametrize(("name", "value"), [(HAPROXY, "0"), ("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/false")])
def test_serve_uses_its_own_proxy_where_haproxy_is_switched_off_or_does_not_run(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert proxy_settings(Path("/tmp")) == {HAPROXY: "0"}


def test_free_ports_are_free_and_distinct(monkeypatch):
    ports = free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
        monkeypatch.setattr(private_ray, "_PORTS", sorted(ports))
        assert sorted(free_ports(2)) == sorted(ports[1:])
