"""`seele status`: a table of runs, or one run in detail; once or live."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from seele_operator.client.errors import ServerError, Unreachable
from seele_operator.client.pages import Detail, detail_lines, runs_table
from seele_operator.client.pods import see_pods
from seele_operator.client.runs import Print, SeenRun, find, plain_line, poll, read_again, see, wait_until
from seele_operator.client.runs_api import RunsApi
from seele_operator.observe.raw import mapping
from seele_operator.plan.names import Manifest

Output = Literal["table", "json", "yaml"]


async def show_runs(api: RunsApi, console: Console, *, all_namespaces: bool, watch: bool, output: Output) -> None:
    """The table of a namespace's runs, or of all namespaces'."""
    namespace = None if all_namespaces else api.namespace

    async def read() -> list[SeenRun]:
        return [see(body) for body in await api.runs(namespace)]

    def table(runs: Sequence[SeenRun]) -> list[Text]:
        if not runs:
            return [Text("no runs in any namespace" if namespace is None else f"no runs in namespace {namespace}")]
        lines = runs_table(runs, datetime.now(UTC), namespaces=all_namespaces)
        for line in lines if watch else ():
            # Text that does not fit is cut at the right, so that the columns stay aligned.
            line.no_wrap, line.overflow = True, "ellipsis"
        return lines

    if output != "table":
        items = [_without_managed_fields(run.body) for run in await read()]
        _print_data(console, {"apiVersion": "v1", "kind": "List", "items": items}, output)
    elif not watch:
        _print(console, table(await read()))
    elif console.is_terminal:
        with _live(console) as live:
            async for runs in poll(read, _printing(live.console)):
                live.update(Group(*table(runs)), refresh=True)
    else:
        print_line, shown = _printing(console), dict[str, str]()
        async for runs in poll(read, print_line):
            latest = {run.uid: f"{run.namespace}/{plain_line(run)}" for run in runs}
            for uid, line in latest.items():
                if shown.get(uid) != line:
                    print_line(line)
            shown = latest


async def show_run(api: RunsApi, name: str, console: Console, *, watch: bool, output: Output) -> None:
    """One run in detail; live, until it has ended."""
    run = await find(api, name)

    async def read() -> Detail | None:
        current = await read_again(api, run)
        return None if current is None else await _detail(api, current)

    if output != "table":
        _print_data(console, _without_managed_fields(run.body), output)
    elif not watch:
        _print(console, detail_lines(await _detail(api, run), datetime.now(UTC)))
    elif console.is_terminal:
        with _live(console) as live:
            async for detail in poll(read, _printing(live.console)):
                if detail is None:
                    live.console.print(f"{name}: was deleted")
                    return
                live.update(Group(*detail_lines(detail, datetime.now(UTC))), refresh=True)
                if detail.run.status.terminal:
                    return
    else:
        await wait_until(api, run, _printing(console), lambda current: current.status.terminal)


async def _detail(api: RunsApi, run: SeenRun) -> Detail:
    """The run with its pods and events, as far as the user may read them."""
    pods, events = None, None
    refused = []
    try:
        pods = see_pods(await api.pods(run.name), run.uid)
    except Unreachable:
        raise
    except ServerError as error:
        refused.append(str(error))
    try:
        events = await api.events(run.name, run.uid)
    except Unreachable:
        raise
    except ServerError as error:
        refused.append(str(error))
    return Detail(run, pods, events, tuple(refused))


def _live(console: Console) -> Live:
    return Live(console=console, auto_refresh=False)


def _print(console: Console, lines: Sequence[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _printing(console: Console) -> Print:
    return lambda line: _print(console, [Text(line)])


def _without_managed_fields(body: Manifest) -> Manifest:
    """An object as kubectl shows it, without the bookkeeping of server-side apply."""
    metadata = {key: value for key, value in mapping(body, "metadata").items() if key != "managedFields"}
    return {**body, "metadata": metadata}


def _print_data(console: Console, data: Manifest, output: Output) -> None:
    if output == "json":
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    else:
        from seele_operator.api.yaml_files import yaml_text

        text = yaml_text(data)
    console.out(text, end="", highlight=False)
