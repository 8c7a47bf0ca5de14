"""The store at which ranks find one another: what it keeps, to whom it answers, and what it does not do."""

import socket

import pytest

from hpcscale.ranks.store import MOST, Store, request


def test_a_key_keeps_its_first_value() -> None:
    store = Store("127.0.0.1")
    here = ("127.0.0.1", store.port)
    with store.served():
        assert request(here, "GET", "/hpcscale/1") is None
        assert request(here, "PUT", "/hpcscale/1", b"one") == ""
        assert request(here, "PUT", "/hpcscale/1", b"two") == ""
        assert request(here, "PUT", "/global/1", b"three") == ""
        assert request(here, "GET", "/hpcscale/1") == "one"
        assert request(here, "DELETE", "/hpcscale/1") == ""
    assert store.values == {"/hpcscale/1": b"one", "/global/1": b"three"}
    with pytest.raises(OSError, match="refused"):
        request(here, "GET", "/hpcscale/1")


def test_it_listens_on_its_address_alone() -> None:
    store = Store("127.0.0.1")
    with store.served(), pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", store.port))


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"HEAD / HTTP/1.0\r\n\r\n", b" 501 "),
        (b"GET /README.md HTTP/1.0\r\n\r\n", b" 404 "),
        (b"PUT /a/b HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (MOST + 1), b" 413 "),
        (b"PUT /a/b HTTP/1.0\r\nContent-Length: -1\r\n\r\n", b" 413 "),
        (b"PUT /a/b HTTP/1.0\r\n\r\n", b""),
        (b"PUT /a/b HTTP/1.0\r\nContent-Length: 3\r\n\r\nab", b""),
        (b"\x16\x03\x01 \r\n\r\n", b""),
    ],
)
def test_it_serves_no_files_and_outlives_what_is_no_rank(
    sent: bytes, answer: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store("127.0.0.1")
    with store.served():
        with socket.create_connection(("127.0.0.1", store.port)) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert answer in connection.recv(1000)
        assert request(("127.0.0.1", store.port), "PUT", "/c/d", b"") == ""
    assert store.values == {"/c/d": b""}
    assert capfd.readouterr().err == ""
