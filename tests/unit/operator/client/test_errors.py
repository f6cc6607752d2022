"""Errors of an API server, and no answer at all: one line each, with the right exit code."""

import socket
from pathlib import Path

import pytest
from aiohttp import web

from seele_operator.api.yaml_files import yaml_text
from seele_operator.client import logs, runs
from seele_operator.client.errors import NO_CRD, Request, user_error
from seele_operator.kube.errors import Answer, Target, error_of
from tests.support.client_bodies import run_body, seele
from tests.support.fake_api_server import FakeApiServer, status
from tests.support.spec_data import good_run, patched


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


@pytest.mark.parametrize("command", [["status"], ["logs"], ["suspend"], ["resume"], ["delete", "--yes"]])
def test_an_empty_name_never_means_all_runs(server: FakeApiServer, command: list[str]) -> None:
    server.runs = {"quick": run_body("quick")}
    result = seele(*command, "")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "the name of the run is empty" in result.stderr
    assert set(server.runs) == {"quick"}


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


@pytest.mark.parametrize(
    ("code", "message", "exit_code", "said"),
    [
        (
            400,
            'admission webhook "w" denied the request: no',
            2,
            "refuses to patch seeleruns in namespace x: admission",
        ),
        (403, 'admission webhook "w" denied the request: no', 1, "refuses to patch seeleruns in namespace x (403)"),
        (422, "denied request: no", 2, "refuses to patch"),
        (500, 'failed calling webhook "w": timed out', 1, "cannot patch seeleruns in namespace x now (500)"),
        (409, "the object has been modified", 1, "try again"),
    ],
)
def test_a_rejected_run_is_bad_input_and_a_failure_of_the_server_is_not(
    code: int, message: str, exit_code: int, said: str
) -> None:
    answer = Answer(code, {"kind": "Status", "message": message})
    error = user_error(error_of(Target("v1", "SeeleRun"), answer), Request("patch", "seeleruns", "x"), "the cluster")

    assert error.exit_code == exit_code
    assert said in str(error)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "words", [("status", "quick", "-w"), ("logs", "quick", "-f"), ("submit", "--wait", "-f", "run.yaml")]
)
def test_following_survives_answers_that_mean_try_again(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(yaml_text(patched(good_run(), {"metadata": {"name": "quick"}})))
    for module in (runs, logs):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    codes = iter([200, 200, 200, code, code])

    def answer() -> web.Response:
        next_code = next(codes, None)
        if next_code == code:
            return status(code, "Trouble", "a moment")
        return web.json_response(run_body(phase="Running" if next_code else "Succeeded"))

    server.refusals["/seeleruns/quick"] = answer
    result = seele(*words)

    assert result.exit_code == 0, result.output
    assert result.output.count(f"now ({code}): a moment; try again; retrying\n") == 1
    assert "quick: Succeeded" in result.output


def test_every_field_that_the_server_refuses_has_its_line() -> None:
    causes = [{"field": "spec.a", "message": "is odd"}, {"field": "spec.b", "message": "is even"}]
    answer = Answer(422, {"kind": "Status", "message": "invalid", "details": {"causes": causes}})
    error = user_error(error_of(Target("v1", "SeeleRun"), answer), Request("patch", "seeleruns", "x"), "the cluster")

    assert error.exit_code == 2
    assert str(error).splitlines() == [
        "spec.a: is odd (refused by the API server)",
        "spec.b: is even (refused by the API server)",
    ]
