"""What `%npm` takes, and what npm's complaints mean: no IO.

npm runs outside of the guest (see guest/courier.py), so it gets only what was thought about: names
of packages in the registry, and options that say what to do with them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from crkernel.errors import BadMagic, NpmFailed, UserError

_SAVING = ("--no-save", "--save-dev", "--save-exact", "--save-optional", "--save-peer")
_SOLVING = ("--force", "--legacy-peer-deps", "--offline", "--prefer-offline", "--loglevel=http")
_SHOWING = ("--all", "--json", "--long")

_OPTIONS: dict[str, tuple[str, ...]] = {
    "install": ("--scripts", *_SAVING, *_SOLVING, "--omit=dev", "--omit=optional"),
    "uninstall": ("--no-save", *_SOLVING),
    "update": ("--scripts", *_SAVING, *_SOLVING, "--omit=dev", "--omit=optional"),
    "prune": ("--omit=dev", "--omit=optional"),
    "dedupe": _SOLVING,
    "ls": _SHOWING,
    "outdated": _SHOWING,
    "view": ("--json",),
}
VERBS = tuple(_OPTIONS)
_LOOKS = ("ls", "outdated", "view")
_ALIASES = {
    "i": "install",
    "add": "install",
    "rm": "uninstall",
    "remove": "uninstall",
    "un": "uninstall",
    "up": "update",
    "upgrade": "update",
    "list": "ls",
    "info": "view",
    "show": "view",
    "ddp": "dedupe",
}
_SHORT = {
    "-D": "--save-dev",
    "-E": "--save-exact",
    "-O": "--save-optional",
    "-a": "--all",
    "-f": "--force",
    "-l": "--long",
}
_IN_THE_GUEST = (
    "run",
    "run-script",
    "exec",
    "x",
    "start",
    "test",
    "t",
    "init",
    "rebuild",
    "create",
)

_NAME = r"(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-zA-Z0-9_-][a-zA-Z0-9._~-]*"
_RANGE = r"[a-zA-Z0-9.^~<>=| *+-]+"
_PACKAGE = re.compile(rf"{_NAME}(?:@(?:npm:{_NAME}(?:@{_RANGE})?|{_RANGE}))?")


@dataclass(frozen=True, slots=True)
class Npm:
    """One call of npm that was found good."""

    verb: str
    words: tuple[str, ...] = ()
    scripts: bool = False

    @property
    def looks(self) -> bool:
        """Whether it only shows something."""
        return self.verb in _LOOKS

    @property
    def line(self) -> str:
        """The magic that does the same."""
        words = [f"'{word}'" if re.search(r"[\s<>|*]", word) else word for word in self.words]
        return " ".join(["%npm", self.verb, *words, *["--scripts"] * self.scripts])


def parse(words: Sequence[str]) -> Npm:
    """Check what follows `%npm`. Raises BadMagic."""
    if not words:
        raise BadMagic("%npm needs a command", hint=f"one of {', '.join(VERBS)}; %npm? explains it")
    verb = _ALIASES.get(words[0], words[0])
    if verb in _IN_THE_GUEST:
        raise BadMagic(
            f"%npm has no {words[0]}: programs run in the guest, not beside it",
            hint=f"require('child_process').execSync('npm {' '.join(words)}').toString()",
        )
    if verb not in _OPTIONS:
        raise BadMagic(f"%npm has no {verb[:40]}{_near(verb, VERBS)}", hint="%npm? lists all")
    given = [_SHORT.get(word, word) for word in words[1:]]
    for word in given:
        _check(verb, word)
    if verb in ("uninstall", "view") and all(word.startswith("-") for word in given):
        raise BadMagic(f"%npm {verb} needs a package", hint=f"for example %npm {verb} left-pad")
    kept = tuple(word for word in given if word != "--scripts")
    return Npm(verb, kept, "--scripts" in given)


def _check(verb: str, word: str) -> None:
    if word.startswith("-"):
        if word not in _OPTIONS[verb]:
            hint = f"options: {', '.join(_OPTIONS[verb])}"
            raise BadMagic(
                f"%npm {verb} has no {word[:60]}{_near(word, _OPTIONS[verb])}", hint=hint
            )
    elif not _PACKAGE.fullmatch(word):
        raise BadMagic(
            f"{word[:60]!r} is no package of the registry",
            hint="write name, name@version or name@tag; addresses, folders and git are refused",
        )


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def candidates(before: str, word: str) -> list[str]:
    """What could stand after `%npm` and the words `before`: commands, then options."""
    words = before.split()
    if not words:
        return list(VERBS)
    options = _OPTIONS.get(_ALIASES.get(words[0], words[0]), ())
    return [option for option in options if option not in words] if word.startswith("-") else []


# -- what npm is at ----------------------------------------------------------------------------

REQUESTS = "--loglevel=http"
"""Has npm tell each request to the registry."""

_REQUEST = "npm http "
_FAILED = re.compile(r"fetch \w+ (\S+) attempt \d+ failed with (\S+)")
_PATIENCE = 1.0  # seconds
_PAUSE = 0.5


class Progress:
    """One line, written over as npm goes on, about a call that takes longer than a second."""

    def __init__(self, began: float) -> None:
        """Times are in seconds."""
        self._next = began + _PATIENCE
        self._looked_up = self._fetched = self._width = 0
        self._trouble = ""

    def takes(self, line: str) -> bool:
        """Whether the line tells of a request; it is then no longer of interest to others."""
        if not line.startswith(_REQUEST):
            return False
        failed = _FAILED.match(line, len(_REQUEST))
        self._trouble = f"; {failed[1]} failed ({failed[2]}), trying again" if failed else ""
        if not failed and ".tgz" in line:
            self._fetched += 1
        elif not failed:
            self._looked_up += 1
        return True

    def text(self, now: float) -> str:
        """What to print now; often nothing."""
        if now < self._next:
            return ""
        self._next = now + _PAUSE
        line = f"npm: {self._looked_up} looked up, {self._fetched} fetched{self._trouble}"
        text = f"\r{line:<{self._width}}"
        self._width = len(line)
        return text

    def end(self) -> str:
        """What ends the line, if there is one."""
        width, self._width = self._width, 0
        return "\n" if width else ""


# -- npm's complaints --------------------------------------------------------------------------

ERROR = "npm error"
"""How a line of a complaint begins. The rest of it is for us to put into words."""

_OFFLINE = "check the network, and the registry and proxy in ~/.npmrc"
_OTHERS = "delete it from package.json: %npm brings packages of the registry only"
_CODES: dict[str, tuple[str, str, str]] = {
    "E401": ("", "the registry wants a login", "put its token into ~/.npmrc on this machine"),
    "E403": ("", "the registry refuses access to it", "put a token that may into ~/.npmrc"),
    "E404": (
        r"resource '(.+)@[^@]*' could not be found",
        "{} is not in the registry",
        "check how it is spelled",
    ),
    "EALLOWDIRECTORY": ("", "package.json names a folder", _OTHERS),
    "EALLOWFILE": ("", "package.json names a file", _OTHERS),
    "EALLOWGIT": ("", "package.json names a git repository", _OTHERS),
    "EALLOWREMOTE": ("", "package.json names an address", _OTHERS),
    "EINTEGRITY": ("", "what came is not what the registry promised", "try again"),
    "EJSONPARSE": (
        r"Invalid package.json: (?:JSONParseError: )?([^\n]+)",
        "package.json is no JSON: {}",
        "correct or delete it",
    ),
    "ENOSPC": ("", "the packages do not fit", "%config disk_size = 4G and %reset give more room"),
    "ENOTCACHED": ("", "it is not in the cache", "leave --offline away"),
    "ERESOLVE": (
        r"Could not resolve dependency:\s+([^\n]+)",
        "the packages contradict each other: {}",
        "other versions, or --legacy-peer-deps, which takes no notice of that",
    ),
    "ETARGET": (r"(No matching version[^\n]+?)\.?\n", "{}", "%npm view NAME shows what there is"),
}
_UNREACHED = (
    "EAI_AGAIN ECONNREFUSED ECONNRESET EHOSTUNREACH ENETUNREACH ENOTFOUND ERR_SOCKET_TIMEOUT"
    " ETIMEDOUT"
)
_UNTRUSTED = (
    "DEPTH_ZERO_SELF_SIGNED_CERT SELF_SIGNED_CERT_IN_CHAIN UNABLE_TO_GET_ISSUER_CERT"
    " UNABLE_TO_GET_ISSUER_CERT_LOCALLY UNABLE_TO_VERIFY_LEAF_SIGNATURE"
)
_INVALID = "CERT_HAS_EXPIRED CERT_NOT_YET_VALID ERR_TLS_CERT_ALTNAME_INVALID"
for _codes, _words, _hint in (
    (_UNREACHED, "the registry {} cannot be reached", _OFFLINE),
    (
        _UNTRUSTED,
        "nobody vouches for the certificate of {}",
        "if your organisation does: cafile=FILE, with its certificates, in ~/.npmrc",
    ),
    (
        _INVALID,
        "the certificate of {} does not hold",
        "check this machine's clock, and the registry and proxy in ~/.npmrc",
    ),
):
    for _code in _codes.split():
        _CODES[_code] = (r"request to (\S+)/\S+ failed", f"{_words} ({_code})", _hint)

_DETAIL = re.compile(r"(?:code|syscall|file|path|dest|errno) ")
"""How the lines begin that npm prints ahead of its message."""


def explain(complaint: Sequence[str], code: int) -> UserError:
    """The error for npm's lines of complaint, each without `npm error`."""
    text = "\n".join(line.strip() for line in complaint) + "\n"
    named = re.search(r"^code (\S+)$", text, re.MULTILINE)
    if named is None or named[1] not in _CODES:
        lines = [line for line in text.splitlines() if line and not _DETAIL.match(line)]
        return NpmFailed(f"npm: {lines[0][:300] if lines else f'it ended with {code}'}")
    pattern, words, hint = _CODES[named[1]]
    found = re.search(pattern, text)
    about = found[1][:300] if found and found.groups() else ""
    return NpmFailed(re.sub(r"\s+", " ", words.format(about)).strip(), hint=hint)
