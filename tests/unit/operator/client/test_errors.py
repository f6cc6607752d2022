"""Errors of an API server, and no answer at all: one line each, with the right exit code."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from seele_operator.cli import app
from seele_operator.client.errors import NO_CRD, Request, user_error
from seele_operator.kube.errors import Answer, Target, error_of
from tests.support.client_bodies import run_body
from tests.support.fake_api_server import FakeApiServer, status

pytestmark = pytest.mark.unit


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    with FakeApiServer() as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path)))
        yield fake


def seele(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def plain(code: int, text: str) -> web.Response:
    return web.Response(status=code, text=text)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (lambda: plain(404, "404 page not found\n"), 1, NO_CRD),
        (lambda: status(401, "Unauthorized", "Unauthorized"), 1, "does not accept the credentials"),
        (
            lambda: status(403, "Forbidden", 'User "eve" cannot list'),
            1,
            'forbidden: list seeleruns in namespace default: User "eve" cannot list; ask for a role with these rights',
        ),
        (
            lambda: status(429, "TooManyRequests", "slow down"),
            1,
            "cannot list seeleruns in namespace default now (429)",
        ),
        (lambda: plain(502, "<html>bad gateway</html>"), 1, "bad gateway"),
        (lambda: plain(200, "<html>hello</html>"), 1, "does not answer as an API server does"),
        (lambda: web.json_response([]), 1, "does not answer as an API server does"),
        (lambda: plain(302, ""), 1, "(302)"),
    ],
)
def test_each_is_one_line(server: FakeApiServer, answer: object, code: int, said: str) -> None:
    server.refusals["/seeleruns"] = answer  # type: ignore[assignment]
    result = seele("status")

    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeApiServer() as gone, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("KUBECONFIG", str(gone.kubeconfig(tmp_path)))
        result = seele("status")

    assert result.exit_code == 1
    assert result.stderr == (
        f"{gone.url} (context fake) does not answer: Connection refused; "
        "check that the cluster is up and its address is right\n"
    )


@pytest.mark.parametrize(
    ("host", "excluded", "code"),
    [
        ("cluster.invalid", "", 0),
        ("cluster.invalid", "other.invalid", 0),
        ("cluster.invalid", ".invalid", 1),
        ("127.1.2.3", "", 0),
        ("127.1.2.3", "127.0.0.0/8", 1),
    ],
)
def test_a_proxy_of_the_environment_is_used_unless_the_server_is_excluded(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, excluded: str, code: int
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", excluded)
    server.url = f"http://{host}:9"
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))

    assert seele("status").exit_code == code


def test_a_name_that_cannot_be_resolved_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeApiServer() as fake:
        fake.url = "http://nowhere.invalid:6443"
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path)))
        result = seele("status")

    assert result.exit_code == 1
    assert result.stderr.startswith("http://nowhere.invalid:6443 (context fake) does not answer: ")
    assert "object at 0x" not in result.stderr


def test_a_run_that_is_not_there_has_a_near_name(server: FakeApiServer) -> None:
    server.runs = {name: run_body(name) for name in ("quick", "other")}

    for command in (["status", "quik"], ["logs", "quik"]):
        result = seele(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "quik: no such run in namespace default; did you mean quick?\n"
    assert seele("status", "xyz").stderr.endswith("; there are other, quick\n")


def test_what_the_user_may_not_list_is_not_needed_to_say_that_a_run_is_missing(server: FakeApiServer) -> None:
    server.refusals["/seeleruns"] = lambda: status(403, "Forbidden", "no")
    result = seele("status", "quik")

    assert result.exit_code == 2
    assert result.stderr == (
        "quik: no such run in namespace default; give another name, or another namespace with -n\n"
    )


def test_every_field_that_the_server_refuses_has_its_line() -> None:
    causes = [{"field": "spec.a", "message": "is odd"}, {"field": "spec.b", "message": "is even"}]
    answer = Answer(422, {"kind": "Status", "message": "invalid", "details": {"causes": causes}})
    error = user_error(error_of(Target("v1", "SeeleRun"), answer), Request("patch", "seeleruns", "x"), "the cluster")

    assert error.exit_code == 2
    assert str(error).splitlines() == [
        "spec.a: is odd (refused by the API server)",
        "spec.b: is even (refused by the API server)",
    ]
