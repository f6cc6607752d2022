"""`seele status`: a table of runs, or one run in detail; once or live."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from seele_operator.client.errors import ServerTrouble, Unreachable
from seele_operator.client.kubeconfig import Target, connect
from seele_operator.client.pages import Detail, detail_lines, runs_table
from seele_operator.client.pods import see_pods
from seele_operator.client.runs import Print, SeenRun, find, follow_run, looks, plain_line, see
from seele_operator.client.server import Server
from seele_operator.observe.raw import mapping
from seele_operator.plan.names import Manifest

Output = Literal["table", "json", "yaml"]


def show_runs(target: Target, console: Console, *, everywhere: bool, watch: bool, output: Output) -> int:
    """The table of a namespace's runs, or of all namespaces'."""
    server = Server(connect(target))
    where = None if everywhere else server.namespace

    def look() -> list[Manifest]:
        return server.runs(where)

    if output != "table":
        items = [_shown(body) for body in look()]
        _print_data(console, {"apiVersion": "v1", "kind": "List", "items": items}, output)
        return 0

    def page(bodies: Sequence[Manifest]) -> list[Text]:
        if not bodies:
            return [Text("no runs in any namespace" if where is None else f"no runs in namespace {where}")]
        return runs_table([see(body) for body in bodies], datetime.now(UTC), namespaces=everywhere)

    if not watch:
        _print(console, page(look()))
    elif console.is_terminal:
        _live(console, look, page)
    else:
        _print_changes(look, _saying(console))
    return 0


def show_run(target: Target, name: str, console: Console, *, watch: bool, output: Output) -> int:
    """One run in detail; live, until it is over."""
    server = Server(connect(target))
    run = find(server, name)
    if output != "table":
        _print_data(console, _shown(run.body), output)
    elif not watch:
        _print(console, detail_lines(_detail(server, run), datetime.now(UTC)))
    elif console.is_terminal:
        _live_detail(console, server, run)
    else:
        last = ""
        for seen in follow_run(server, run, _saying(console)):
            line = f"{name}: was deleted" if seen is None else plain_line(seen)
            if line != last:
                _print(console, [Text(line)])
                last = line
            if seen is not None and seen.status.terminal:
                break
    return 0


def _detail(server: Server, run: SeenRun) -> Detail:
    """The run with its pods and events, as far as the user may see them."""
    refused = []
    try:
        pods = see_pods(server.pods(run.name), run.uid)
    except Unreachable:
        raise
    except ServerTrouble as error:
        pods = None
        refused.append(str(error))
    try:
        events = server.events(run.name, run.uid)
    except Unreachable:
        raise
    except ServerTrouble as error:
        events = None
        refused.append(str(error))
    return Detail(run, pods, events, tuple(refused))


def _live_detail(console: Console, server: Server, run: SeenRun) -> None:
    def look() -> Detail | None:
        body = server.run(run.name)
        seen = None if body is None else see(body)
        return None if seen is None or seen.uid != run.uid else _detail(server, seen)

    with _screen(console) as live:
        for detail in looks(look, _saying(live.console)):
            if detail is None:
                live.console.print(f"{run.name}: was deleted")
                return
            live.update(Group(*detail_lines(detail, datetime.now(UTC))), refresh=True)
            if detail.run.status.terminal:
                return


def _live(
    console: Console, look: Callable[[], list[Manifest]], page: Callable[[Sequence[Manifest]], list[Text]]
) -> None:
    with _screen(console) as live:
        for bodies in looks(look, _saying(live.console)):
            lines = page(bodies)
            for line in lines:
                # What does not fit is cut at the right, so that a table stays one.
                line.no_wrap, line.overflow = True, "ellipsis"
            live.update(Group(*lines), refresh=True)


def _screen(console: Console) -> Live:
    return Live(console=console, auto_refresh=False)


def _print_changes(look: Callable[[], list[Manifest]], say: Print) -> None:
    """Without a terminal: a line for each run, and again for each that has changed."""
    known: dict[str, str] = {}
    for bodies in looks(look, say):
        now = {(seen := see(body)).uid: f"{seen.namespace}/{plain_line(seen)}" for body in bodies}
        for uid, line in now.items():
            if known.get(uid) != line:
                say(line)
        known = now


def _print(console: Console, lines: Sequence[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _saying(console: Console) -> Print:
    return lambda line: console.print(Text(line), soft_wrap=True)


def _shown(body: Manifest) -> Manifest:
    """An object without the bookkeeping of server-side apply, as kubectl shows it."""
    metadata = {key: value for key, value in mapping(body, "metadata").items() if key != "managedFields"}
    return {**body, "metadata": metadata}


def _print_data(console: Console, data: Manifest, output: Output) -> None:
    if output == "json":
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    else:
        from seele_operator.api.yaml_files import yaml_text

        text = yaml_text(data)
    console.out(text, end="", highlight=False)
