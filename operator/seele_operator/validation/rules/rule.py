"""What a rule is: a field, a message, and the same condition in CEL and in Python."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from seele_operator.api.seelerun import SeeleRunSpec
from seele_trainer.methods import METHODS, Method

Values = Mapping[str, object]
"""What a message says about one violation, by the names in its braces."""

Check = Callable[[SeeleRunSpec], Iterable[Values]]
"""Yields the values of each violation of a rule. The sections of the spec need not be among them."""

_CHOICE = re.compile(r"\[([^]|]*)\|?([^]]*)\]")


@dataclass(frozen=True)
class Rule:
    """A condition on a SeeleRun, checked by the API server in CEL and by `seele validate` in Python."""

    field: str
    """Dotted path of the field that the message names, such as `spec.trainer.env[{index}].name`."""
    message: str
    """What is wrong, and the remedy. `[{training.steps} steps|too few]` is `12 steps` in Python and `too few` in CEL."""
    cel: str = ""
    """Expression that holds for a good run; empty if CEL cannot check the rule."""
    self_is: str = "spec"
    """Dotted path of `self` in the expression; `[]` stands for each entry of a list."""
    check: Check = lambda _: ()
    """The condition in Python; finds nothing if the models already check the rule."""

    @property
    def general_message(self) -> str:
        """The message of the API server, which cannot name values."""
        return f"{re.sub('{.*?}', '', self.field)}: {_CHOICE.sub(lambda match: match[2], self.message)}"

    def line(self, spec: SeeleRunSpec, values: Values) -> str:
        """The message of `seele validate` about one violation."""
        message = _CHOICE.sub(lambda match: match[1], self.message)
        return f"{self.field}: {message}".format_map({**vars(spec), **values})

    def problems(self, spec: SeeleRunSpec) -> Iterator[str]:
        """A line for each violation."""
        return (self.line(spec, values) for values in self.check(spec))


class Rules(list[Rule]):
    """The rules about one subject, in the order in which they are reported."""

    def add(self, field: str, message: str, cel: str = "", self_is: str = "spec") -> Callable[[Check], Check]:
        """Add a rule with the decorated function as its check in Python."""

        def added(check: Check) -> Check:
            self.append(Rule(field, message, cel, self_is, check))
            return check

        return added


def when(broken: Callable[[SeeleRunSpec], object]) -> Check:
    """The check of a rule whose message needs only values of the spec."""
    return lambda spec: [{}] if broken(spec) else []


def strategy_is(fact: Callable[[Method], bool]) -> str:
    """CEL for whether a fact holds for the run's strategy."""
    names = ", ".join(f"'{name}'" for name, method in METHODS.items() if fact(method))
    return f"self.training.strategy in [{names}]"
