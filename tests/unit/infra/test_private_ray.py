"""Which proxy a private Ray is told to use, and where."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pawcast_infra.local import private_ray
from pawcast_infra.local.private_ray import HAPROXY, free_ports, proxy_settings

PORTS = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
# What Linux takes, less what HAProxy appends while it takes over a socket: `.PID.tmp`.
LONGEST_SOCKET = 107 - len(".4194304.tmp")
NODE = "0" * 56


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    for name in (HAPROXY, "RAY_SERVE_HAPROXY_BINARY_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_haproxy_has_ports_and_files_of_one_ray_s_own():
    folder = Path("/tmp/pawcast-abcdefgh")
    settings = proxy_settings(folder)
    assert settings[HAPROXY] == "1"
    assert len({settings[port] for port in PORTS}) == len(PORTS)
    places = {Path(value) for value in settings.values() if not value.isdecimal()}
    assert all(place.is_relative_to(folder) for place in places)
    # Ray puts a folder with the node's name in between.
    assert all(len(str(place.parent / NODE / place.name)) <= LONGEST_SOCKET for place in places)


@pytest.mark.parametrize(("name", "value"), [(HAPROXY, "0"), ("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/false")])
def test_serve_s_own_proxy_answers_where_haproxy_is_unwanted_or_does_not_run(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert proxy_settings(Path("/tmp")) == {HAPROXY: "0"}


def test_ports_that_are_found_are_free_and_none_comes_twice(monkeypatch):
    found = free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", found[0]))
        monkeypatch.setattr(private_ray, "_PORTS", sorted(found))
        assert sorted(free_ports(2)) == sorted(found[1:])
