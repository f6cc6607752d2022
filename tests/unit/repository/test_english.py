"""Phrases that keep creeping in and that readers stumble over, in code, messages and pages alike."""

import re
import subprocess

from tests.support import REPOSITORY

SUFFIXES = {".py", ".md", ".yaml", ".yml", ".sh", ".toml", ".tpl", ".j2", ".txt"}
NAMES = {"Makefile", "Dockerfile", "run"}
PHRASES = {
    r"(?<!here )\b(?:is|are) (?:no|none of) (?!longer\b|more\b|fewer\b|less\b|later\b|earlier\b|older\b|newer\b)": "is not a …",
    r"\b(?:is|are) (?-i:none)\b": "there is none",
    r"\b(?:go|goes|going|went|gone) on\b": "continues, resumes",
    r"\b(?:told|tells? of)\b": "states, reports, is informed",
    r"\b(?:nobody|somebody|whoever)\b": "no one, someone, anyone who; better: name who",
    r"\banew\b": "again",
    r"\bwhere (?:absent|left out|not given)\b": "if unset",
    r"\b(?:is|was|are|were) asked for\b": "requested",
    r"\bof one's own\b": "your own",
    r"\bat hand\b": "available",
    r"\bfor ever\b": "forever",
    r"\bby itself\b(?= (?:in|where))": "on its own",
    r"\bleft to a person\b": "manual",
}
"""Pattern: what to write in its place."""


def texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    files = [REPOSITORY / line for line in listed.splitlines()]
    own = REPOSITORY / "tests" / "unit" / "repository" / "test_english.py"
    return {
        str(file.relative_to(REPOSITORY)): file.read_text(encoding="utf-8")
        for file in files
        if file.is_file() and file != own and (file.suffix in SUFFIXES or file.name in NAMES)
    }


def test_no_text_uses_a_phrase_that_has_a_plainer_one() -> None:
    found = [
        f"{path}:{number}: {match[0]!r}: {better}"
        for path, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, better in PHRASES.items()
        if (match := re.search(pattern, line, re.IGNORECASE))
    ]

    assert found == [], "\n".join(found)


if __name__ == "__main__":
    test_no_text_uses_a_phrase_that_has_a_plainer_one()
