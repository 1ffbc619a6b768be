"""What a shell command and its output tell: noise or not, the outcome, the lines that matter."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from commonplace_runtime.domain.observations import clip, unique
from commonplace_runtime.domain.payloads import ToolUse, strings_of

_NOISE: Final = frozenset(
    {"ls", "ll", "dir", "tree", "pwd", "cd", "clear", "which", "whoami", "true", "sleep", "date", "wc", "find", "stat",
     "file", "history", "ps", "mkdir", "touch", "chmod", "echo", "printf", "env", "hostname", "id", "du", "df", "type",
     "jobs", "kill", "wait", "export", "source"}
)  # fmt: skip
_QUIET_GIT: Final = frozenset(
    {"status", "branch", "add", "log", "show", "stash", "fetch", "remote", "rev-parse", "diff", "checkout", "switch"}
)
_FILTERS: Final = frozenset(
    {"head", "tail", "sort", "uniq", "grep", "cut", "tr", "less", "more", "cat", "column", "nl"}
)
_JOINT = re.compile(r"&&|\|\||[;|]")
_CHANGES_STATE = re.compile(
    r"\b(?:commit|push|merge|rebase|tag|install|uninstall|upgrade|apply|delete|deploy|migrate|publish|release|restart|up|"
    r"down|create|drop|rollback|helm|kubectl|terraform|docker|alembic|psql)\b"
)
_OPERATORS: Final = frozenset({"kubectl", "oc", "helm", "docker", "podman", "terraform"})
_SHOWS: Final = frozenset(
    {"get", "logs", "describe", "top", "explain", "ps", "images", "inspect", "stats", "list", "ls", "history", "show",
     "plan", "version"}
)  # fmt: skip
_OF_WHAT: Final = frozenset({"compose", "container", "image", "volume", "network", "rollout", "state"})
# One statement that calls nothing: a function may do anything.
_SELECT = re.compile(
    r"psql\b[^'\"]*\s-c\s*(['\"])\s*(?:select|show)\b(?:(?!\b(?:into|update)\b)"
    r"(?:\b(?:count|sum|min|max|avg|now)\(|[^'\";(\\]|(?<!\w)(?<!\w )\())*;?\s*\1\s*",
    re.IGNORECASE,
)
_ANOTHER_COMMAND = re.compile(r"[&`]|\$\(|[<>]\(")
# `2>&1` and `> /dev/null` write nothing.
_WRITES_FILES = re.compile(
    r"(?<![0-9&=<-])>{1,2}(?!&|\s*/dev/null)|\s-(?:delete|exec)\b|\b(?:sed|perl)\s+-\w*i|\b(?:tee|mv|cp|rm|ln|patch)\s"
)
_PREFIX = re.compile(
    r"^(?:cd\s+\S+\s*(?:&&|;)\s*|(?:sudo|time|env|command)\s+|[A-Z_][A-Z0-9_]*=\S*\s+|timeout\s+\S+\s+)+"
)
_TEST_SUMMARY: Final[Sequence[re.Pattern[str]]] = (
    re.compile(
        r"^=*[ \t]*((?:\d+ (?:passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?|rerun)(?:, )?)+"
        r"(?: in [\d.:smh ()]+)?)",
        re.MULTILINE,
    ),
    re.compile(r"^[ \t]*(Tests?:[ \t].*\d (?:passed|failed|total).*)$", re.MULTILINE),
    re.compile(r"^[ \t]*(Tests run: \d+.*)$", re.MULTILINE),
    re.compile(r"^(test result: .*)$", re.MULTILINE),
    re.compile(r"^[ \t]*(\d+ (?:passing|failing|pending).*)$", re.MULTILINE),
    re.compile(r"^((?:--- FAIL|FAIL|ok)\s+\S+.*)$", re.MULTILINE),
    re.compile(r"^(Ran \d+ tests? in .*)$", re.MULTILINE),
    re.compile(r"^(Found \d+ errors?.*)$", re.MULTILINE),
)
_FAILED_TESTS = re.compile(
    r"\b[1-9]\d* (?:failed|failing|errors?)\b|^(?:--- )?FAIL\b|test result: FAILED|Failures: [1-9]"
    r"|Found [1-9]\d* error",
    re.MULTILINE,
)
_ERROR = re.compile(
    r"(?:Error|Exception)\b|\b(?:fatal|panic|FAILED|FAIL|denied|refused|not found|no such file|cannot|"
    r"can't|undefined|segfault|unreachable|timed? ?out|conflict)\b|^E {2,}",
    re.IGNORECASE,
)


LINE_CHARACTERS: Final = 400
MAX_LINES: Final = 4000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the output of one command says. `is_test`: it has the summary of a test run, which the verdict quotes."""

    failed: bool
    verdict: str
    errors: Sequence[str]
    is_test: bool = False


def bare_command(command: str) -> str:
    """The command without `cd … &&`, sudo and variable assignments; here-documents and line breaks folded."""
    return _PREFIX.sub("", " ".join(command.split()))


def command_of(use: ToolUse) -> str:
    """The command line that a tool was given; empty when it was given none."""
    raw = use.input.get("command", use.input.get("cmd"))
    return " ".join(strings_of(raw, 50)) if isinstance(raw, list) else raw if isinstance(raw, str) else ""


def writes(command: str) -> bool:
    """Whether a command may change files, the repository or something that runs. In doubt it does."""
    bare = bare_command(command)
    if _WRITES_FILES.search(bare):
        return True
    if not _CHANGES_STATE.search(bare):
        return False
    # Line by line: the end of one ends its command.
    parts = [part for line in command.splitlines() for part in _JOINT.split(bare_command(line))]
    return any(_CHANGES_STATE.search(part) and not _only_shows(part.strip()) for part in parts)


def _only_shows(part: str) -> bool:
    """Whether what could change something that runs is asked only how it stands: `kubectl -n staging logs …`."""
    part = part.replace("2>&1", "")
    if _ANOTHER_COMMAND.search(part):
        return False
    program, *words = part.split() or [""]
    if program not in _OPERATORS:
        return _SELECT.fullmatch(part) is not None
    before = ""
    for word in words:
        is_value = before.startswith("-") and "=" not in before
        if word in _SHOWS and not is_value:
            return True
        # An option, or its value, or the kind of thing that is shown. Not every option has a value.
        is_beside = word.startswith("-") or is_value or word in _OF_WHAT
        if not is_beside or _CHANGES_STATE.fullmatch(word):
            return False
        before = word
    return False


def is_noise(command: str, output: str, *, failed: bool) -> bool:
    """Whether nobody will ask for this run again: listings, moves, commands that said and changed nothing."""
    bare = bare_command(command)
    if not bare:
        return True
    if failed:
        return False
    if not _WRITES_FILES.search(bare) and _is_routine(bare):
        return True
    return not output.strip() and not writes(command)


def _is_routine(bare: str) -> bool:
    """Whether every part of a command line only lists, moves or shows what git knows; filters may follow."""
    return all(
        _is_routine_part(part, piped=joint.startswith("|") and joint != "||")
        for joint, part in zip(["", *_JOINT.findall(bare)], _JOINT.split(bare), strict=True)
    )


def _is_routine_part(part: str, *, piped: bool) -> bool:
    words = bare_command(part).split()
    if not words:
        return True
    program = words[0].rsplit("/", 1)[-1]
    if program == "git":
        return len(words) > 1 and words[1] in _QUIET_GIT
    return program in _NOISE or (piped and program in _FILTERS)


def outcome_of(output: str, *, failed: bool, exit_code: int | None) -> Outcome:
    """Reads exit status, test summaries and error lines. `failed`: what the tool itself said."""
    # Cut lines: the patterns below look at each several times.
    lines = [line[:LINE_CHARACTERS] for line in output.splitlines()[-MAX_LINES:]]
    output = "\n".join(lines)
    summaries = [clip(match, 160) for pattern in _TEST_SUMMARY for match in pattern.findall(output)]
    summary = "; ".join(unique(summaries[-3:], 3))
    really = failed or bool(_FAILED_TESTS.search(output))
    errors = unique([clip(line, 240) for line in lines if _ERROR.search(line)], 6) if really else ()
    if summary:
        verdict = summary
    elif really:
        verdict = f"failed with exit status {exit_code}" if exit_code else "failed"
    else:
        verdict = "succeeded" if exit_code == 0 else ""
    return Outcome(failed=really, verdict=clip(verdict, 200), errors=errors, is_test=bool(summary))
