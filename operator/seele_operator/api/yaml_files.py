"""SeeleRun files: one YAML document, read as kubectl reads it, and written.

PyYAML alone would accept duplicate keys, read `1e-6` as text, and read dates as dates.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from seele_operator.api.types import BadRunError, yaml_path

_MAX_VALUES = 100_000

_STANDARD_INPUT = "-"


class _RunLoader(yaml.SafeLoader):
    """YAML with the types of JSON only."""


_TAG = "tag:yaml.org,2002:"

_JSON_TYPES = {None, *(_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map"))}

_RunLoader.yaml_constructors = {
    tag: constructor for tag, constructor in yaml.SafeLoader.yaml_constructors.items() if tag in _JSON_TYPES
}

_RunLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in {_TAG + "null", _TAG + "bool", _TAG + "merge"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

_RunLoader.add_implicit_resolver(
    _TAG + "int",
    re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)

_RunLoader.add_implicit_resolver(
    _TAG + "float",
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def read_run_file(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, or on standard input for `-`. Raises BadRunError with a line for each problem."""
    name = "standard input" if str(path) == _STANDARD_INPUT else str(path)
    text = _read_text(path, name)
    try:
        return _parsed(text, name)
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        place = f":{where.line + 1}:{where.column + 1}" if where else ""
        raise BadRunError([f"{name}{place}: not valid YAML: {_yaml_problem(error)}"]) from error
    except yaml.reader.ReaderError as error:
        place = f"character {error.position} (code {error.character})"
        raise BadRunError([f"{name}: not valid YAML: {place} is not text; remove it"]) from error
    except RecursionError as error:
        raise BadRunError([f"{name}: nested too deeply for a SeeleRun; `seele crd` prints its fields"]) from error


_YAML_PROBLEMS = (
    (r"expected <block end>.*", "this line does not continue the one above; check the indentation of this line"),
    (r"found character '\\t'.*", "found a tab; use spaces, not tabs"),
    (r"(found character) ('.').*", r"a value cannot start with \2; put the value in quotes"),
    (
        r"mapping values.*",
        "a value here has its own `: `; check the indentation of this line, or put the value in quotes",
    ),
    (r"sequence entries.*", "a list starts in the middle of a line; start each entry on a line of its own, with `- `"),
    (r"could not find expected ':'", "the line above is not `name: value`; correct it, or put a long text in quotes"),
    (r"expected ',' or '(.)'.*", r"a bracket is not closed; close it with \1 before this"),
    (r"found unexpected end of stream", "a quote is not closed; close it"),
    (r"found undefined alias '(.*)'", r'"*\1" is an alias that is not defined; put the value in quotes'),
    (r"could not determine a constructor.*", "a tag (!) has no meaning here; remove it, or put the value in quotes"),
    (r"found unknown escape.*", "a \\ in double quotes starts an escape; use single quotes"),
)
"""Messages of PyYAML, each with what is wrong in other words, and the remedy."""


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    reason = " ".join(str(error.problem or error.context).split())
    for pattern, line in _YAML_PROBLEMS:
        match = re.fullmatch(pattern, reason)
        if match is not None:
            return match.expand(line)
    return f"{reason}; correct the file there"


def _parsed(text: str, name: str) -> dict[str, Any]:
    loader = _RunLoader(text)
    try:
        nodes = []
        while loader.check_node():
            nodes.append(loader.get_node())
        node = _only_document([node for node in nodes if node is not None and node.tag != _TAG + "null"], name)
        problems = list(_key_problems(node))
        if problems:
            raise BadRunError(problems)
        try:
            return dict(loader.construct_document(node))
        except (ValueError, LookupError) as error:
            # An explicit tag on text that it does not fit, such as `!!int ten`.
            if isinstance(error, yaml.YAMLError):
                raise
            raise BadRunError([f"{name}: a value does not fit its YAML tag (!!): {error}; remove the tag"]) from error
    finally:
        loader.dispose()


def _read_text(path: str | Path, name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == _STANDARD_INPUT else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise BadRunError(
            [f"{name}: no such file; give the path of a SeeleRun in YAML, or - for standard input"]
        ) from error
    except IsADirectoryError as error:
        raise BadRunError([f"{name}: is a folder; give the path of a SeeleRun file in it"]) from error
    except UnicodeDecodeError as error:
        raise BadRunError([f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8 text"]) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadRunError([f"{name}: cannot be read: {reason}; check the path and its permissions"]) from error


def _only_document(nodes: list[yaml.Node], name: str) -> yaml.Node:
    if not nodes:
        raise BadRunError([f"{name}: is empty; write a SeeleRun: apiVersion, kind, metadata and spec"])
    if len(nodes) > 1:
        raise BadRunError([f"{name}: holds {len(nodes)} documents; keep one SeeleRun in each file"])
    if not isinstance(nodes[0], yaml.MappingNode):
        kind = "a list" if isinstance(nodes[0], yaml.SequenceNode) else "a single value"
        raise BadRunError([f"{name}: holds {kind}; a SeeleRun is a mapping of apiVersion, kind, metadata and spec"])
    return nodes[0]


def _key_problems(root: yaml.Node) -> Iterator[str]:
    """Duplicate keys, keys that are not text, nodes that contain themselves, and files that aliases expand too far."""
    visited = 0
    pending: list[tuple[yaml.Node, tuple[str | int, ...], frozenset[int]]] = [(root, (), frozenset())]
    while pending:
        node, path, above = pending.pop()
        visited += 1
        if visited > _MAX_VALUES:
            yield f"{yaml_path(path)}: expands to more than {_MAX_VALUES} values; write it without aliases (*)"
            return
        if id(node) in above:
            yield f"{yaml_path(path)}: contains itself by an alias (*); write it without the alias"
            return
        inside = above | {id(node)}
        if isinstance(node, yaml.SequenceNode):
            pending.extend((entry, (*path, index), inside) for index, entry in reversed([*enumerate(node.value)]))
        if not isinstance(node, yaml.MappingNode):
            continue
        first_line: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag not in {_TAG + "str", _TAG + "merge"}:
                shown = key.value if isinstance(key, yaml.ScalarNode) else "(a list or mapping)"
                yield f"{yaml_path((*path, shown))}: is a key that is not text (line {line}); put it in quotes"
            elif key.tag == _TAG + "str" and key.value in first_line:
                place = yaml_path((*path, key.value))
                yield f"{place}: is given twice (lines {first_line[key.value]} and {line}); keep one of them"
            elif key.tag == _TAG + "str":
                first_line[key.value] = line
        entries = [(value, (*path, str(key.value)), inside) for key, value in node.value]
        pending.extend(reversed(entries))


try:
    # Several times as fast, and the operator writes a configuration for each run.
    from yaml import CSafeDumper as _SafeDumper
except ImportError:
    from yaml import SafeDumper as _SafeDumper  # type: ignore[assignment]


class _Dumper(_SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def yaml_text(*documents: Any) -> str:
    """The documents as YAML, with keys in their original order."""
    text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text
