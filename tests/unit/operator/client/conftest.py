"""An API server in memory, which the commands find by KUBECONFIG."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_api_server import FakeApiServer


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    with FakeApiServer() as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path)))
        yield fake
