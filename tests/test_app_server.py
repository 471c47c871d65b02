"""The server of `crystens app`, over HTTP: it serves this machine, bounds requests, and shows no traceback."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from tests.asked_models import one_crystal
from tests.html_page import parse, text_of

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra app")
pytest.importorskip("starlette", reason="needs the extra app")
server = pytest.importorskip("crystens.app.server")

FORM = {"model": "salt", "num_samples": "2", "seed": "1"}


class Client:
    """Asks a server of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(
        self, method: str, path: str, form: dict[str, str] | None = None, host: str = "127.0.0.1"
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = None if form is None else urlencode(form)
        connection.request(method, path, body, {"Host": host})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return *found[:2], found[2].decode("latin-1")

    def token(self) -> str:
        return re.search(r'name="token" value="([^"]+)"', self("GET", "/")[2])[1]


@pytest.fixture
def ask(nacl: Crystal) -> Iterator[Client]:
    """A server of one model."""
    app = server.application({"salt": one_crystal(nacl)})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Client(listening.getsockname()[1])
        running.should_exit = True
        thread.join()


def answered(ask: Client, form: dict[str, str]) -> str:
    """Ask, and return the path of the job when it has ended."""
    status, headers, _ = ask("POST", "/ask", form | {"token": ask.token()})
    assert status == 303
    path = headers["location"].removesuffix("#job")
    while not json.loads(ask("GET", f"{path}/state")[2])["ended"]:
        time.sleep(0.02)
    return path


def test_a_question_is_answered_and_taken_home(ask: Client) -> None:
    path = answered(ask, FORM | {"condition.formula": "NaCl"})
    status, headers, page = ask("GET", path)
    assert status == 200
    assert headers["x-frame-options"] == "DENY"
    assert "2 of 2 became crystals" in text_of(parse(page))
    status, headers, text = ask("GET", f"{path}/cifs/1.cif")
    assert (status, headers["content-disposition"]) == (200, 'attachment; filename="NaCl_000001.cif"')
    assert text.startswith("data_NaCl")
    assert ask("GET", f"{path}/crystals.zip")[2].startswith("PK")
    for missing in (f"{path}/cifs/2.cif", f"{path}/cifs/x.cif", "/jobs/none", "/jobs/none/state", "/%2e%2e/etc/passwd"):
        status, _, page = ask("GET", missing)
        assert status == 404
        assert "there is no such page" in text_of(parse(page))


def test_a_bad_question_is_answered_on_the_page(ask: Client) -> None:
    form = FORM | {"condition.space_group": "Fm-3q", "token": ask.token()}
    status, _, page = ask("POST", "/ask", form)
    assert status == 422
    (error,) = (element for element in parse(page).iter("div") if element.get("id") == "error")
    assert text_of(error).startswith("condition.space_group=Fm-3q is no space group; give a number from 1 to 230")
    assert 'value="Fm-3q"' in page  # stays in its field


def test_other_pages_and_other_machines_cannot_ask(ask: Client) -> None:
    assert ask("POST", "/ask", FORM)[0] == 403
    assert ask("POST", "/ask", FORM | {"token": "guessed"})[0] == 403
    for host in ("example.com", "127.0.0.1.example.com"):
        assert ask("GET", "/", host=host)[0] == 400
    assert ask("GET", "/", host="localhost:1")[0] == 200


def test_requests_are_bounded(ask: Client) -> None:
    assert ask("POST", "/ask", {"token": "x" * server.MOST_BYTES})[0] == 413
    assert ask("POST", "/ask", {str(number): "" for number in range(100)})[0] == 400
    assert ask("GET", "/ask")[0] == 405


def test_a_job_is_stopped(ask: Client, nacl: Crystal) -> None:
    path = answered(ask, FORM)
    assert ask("POST", f"{path}/stop", {})[0] == 403
    assert ask("POST", f"{path}/stop", {"token": ask.token()})[0] == 303


def test_a_defect_shows_no_traceback(ask: Client, monkeypatch) -> None:
    def fails(*_: object) -> str:
        raise RuntimeError("/home/me/secret")

    monkeypatch.setattr(server, "job_page", fails)
    status, _, page = ask("GET", answered(ask, FORM))
    assert status == 500
    assert "secret" not in page
    assert "Traceback" not in page
    assert "the terminal of `crystens app` says why" in text_of(parse(page))


def test_a_taken_port_is_one_line(nacl: Crystal) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CrystensError, match="cannot be used: Address already in use; give another one by --port"):
            server.serve({"salt": one_crystal(nacl)}, taken.getsockname()[1], browser=False)
