"""The kernel's settings: traits that a kernelspec's argv, a configuration file or %config sets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from traitlets import Float, Int, TraitError, Unicode
from traitlets.config import Config, Configurable
from traitlets.config.loader import KVArgParseConfigLoader

from crkernel.engines import Limits
from crkernel.errors import CRKernelError, UserError
from crkernel.guesses import no_setting
from crkernel.outcome import Audience, Place

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SECTION = "CRKernel"
"""What comes before a setting on a command line: the kernel's class."""
_OURS = re.compile(f"--{_SECTION}\\.")
_MOST = (1 << 63) - 1  # what the system can take


class Number(Int[int, int | str]):
    """A whole number, also as text. TraitError says in plain words what else it should be."""

    takes = "a whole number"

    def validate(self, obj: Any, value: Any) -> int:  # noqa: ARG002
        """Raises TraitError for what is none, or out of bounds."""
        number = self.read(value) if isinstance(value, str) else value
        least = self.min or 0
        if type(number) is not int or not least <= number <= _MOST:
            takes = f"{self.takes}, at least {show(least)}"
            raise TraitError(f"{self.name} cannot be {str(value)!r}: it takes {takes}")
        return number

    def from_string(self, s: str) -> Any:
        """What a command line or %config gives."""
        return s

    def read(self, text: str) -> int | None:
        """The number that a text means; None if it means none."""
        return int(text) if re.fullmatch(r"\s*\d{1,18}\s*", text) else None


class Size(Number):
    """A number of bytes, also written like "512M" or "2 GiB"."""

    takes = "a size in bytes or like 512M or 2G"

    def read(self, text: str) -> int | None:
        """As `Number.read`."""
        match = _SIZE.fullmatch(text.strip())
        return match and int(min(float(match[1]), float(_MOST)) * _UNITS[match[2].upper()])


class Amount(Float[float, float | str]):
    """A finite number, also as text. TraitError says in plain words what else it should be."""

    def validate(self, obj: Any, value: Any) -> float:  # noqa: ARG002
        """Raises TraitError for what is none, or below 0."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise TraitError(f"{self.name} cannot be {str(value)!r}: it takes a number, at least 0")
        return number

    def from_string(self, s: str) -> Any:
        """What a command line gives."""
        return s


class Choice(Unicode[str, str | bytes]):
    """One of a few words."""

    def __init__(self, words: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(words[0], **kwargs)
        self.words = words

    def validate(self, obj: Any, value: Any) -> str:  # noqa: ARG002
        """Raises TraitError for any other."""
        if value not in self.words:
            takes = " or ".join(self.words)
            raise TraitError(f"{self.name} cannot be {str(value)!r}: it takes {takes}")
        return str(value)

    def from_string(self, s: str) -> Any:
        """What a command line or %config gives."""
        return s


class Settings(Configurable):
    """What can be set. It is a base of the kernel: on a command line `--CRKernel.memory=2G`."""

    engine = Unicode("auto", help="Where sandboxes run: auto, local or docker.").tag(
        config=True, fixed=True
    )
    memory = Size(
        Limits.default().memory,
        min=256 << 20,
        help="Memory of the guest, per process; a third of the machine's.",
    ).tag(config=True)
    max_processes = Number(
        Limits.default().max_processes, min=64, help="Processes and threads of the guest."
    ).tag(config=True)
    file_size = Size(
        Limits.default().file_size, min=1 << 20, help="The largest file the guest can write."
    ).tag(config=True)
    disk_size = Size(
        Limits.default().disk_size,
        min=1 << 20,
        help="Its writable tree, in memory: /home/work, /tmp, /dev/shm.",
    ).tag(config=True)
    network = Choice(
        ("none", "full"),
        help="What a guest reaches: none, its own loopback; full, whatever this machine does.",
    ).tag(config=True)
    staging_size = Size(
        Limits.default().staging_size,
        min=64 << 20,
        help="All checkpoints of the session, in memory; a third of the machine's.",
    ).tag(config=True, fixed=True)

    pool = Number(
        0,
        min=0,
        help="Sandboxes with a guest that are kept ready for the kernels to come, for an hour.",
    ).tag(config=True, fixed=True)
    docker_network = Unicode(
        "default",
        help="Docker's network by which packages, and guests with network=full, get in and out, "
        "with the engine docker: bridge, host, ...",
    ).tag(config=True, fixed=True)
    cpus = Amount(
        0.0,
        help="Processors for all of it together, with the engine docker; 0: no limit.",
    ).tag(config=True, fixed=True)
    colors = Choice(
        ("auto", "always", "never"),
        help="What has colours; auto: errors, and where a person looks at them, values too.",
    ).tag(config=True, at_once=True)
    output_size = Size(
        16 << 20,
        min=1 << 16,
        help="Characters that one cell may print before the rest is not shown; of what it "
        "displays, or sends by comms, 16 times that in bytes may wait for a slow front end.",
    ).tag(config=True, at_once=True)

    misconfigured: CRKernelError | None = None
    """Why there can be no guest under the settings that the kernel was started with."""

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Settings:
        """Those that a kernel with these arguments has, whatever configuration files say."""
        # The others are the application's, and not known here.
        ours = [
            word
            for before, word in pairwise(("", *arguments))
            if _OURS.match(word) or (_OURS.match(before) and "=" not in before)
        ]
        told = KVArgParseConfigLoader(ours).load_config()
        return Settings(config=Config(Settings=told.get(_SECTION, {})))

    def _load_config(self, cfg: Config, section_names: Any = None, traits: Any = None) -> None:
        """A bad setting does not keep the kernel from starting: the first cell tells."""
        try:
            self._check_names(cfg.get(type(self).__name__, {}))
            super()._load_config(cfg, section_names, traits)
        except (TraitError, ValueError) as error:
            self.misconfigured = UserError(
                str(error), hint=f"correct it in the kernelspec's argv, {_RESTART}"
            )

    def _check_names(self, section: Mapping[str, Any]) -> None:
        """Raises TraitError for one that is no setting, of which traitlets only tells the log."""
        for name, value in section.items():
            if not self.has_trait(name) and not isinstance(value, Config):
                raise TraitError(no_setting(name, self._configurable()))

    def settings(self) -> dict[str, str]:
        """All of them, as text."""
        return {name: show(getattr(self, name)) for name in self._configurable()}

    def choices(self) -> dict[str, tuple[str, ...]]:
        """All of them, and of each the words that it takes; none where those are many."""
        return {name: getattr(t, "words", ()) for name, t in self._configurable().items()}

    def explanations(self) -> dict[str, str]:
        """What each of them is for."""
        return {name: trait.help for name, trait in self._configurable().items()}

    def change_setting(self, name: str, text: str) -> str:
        """Set one and say from when it holds. Raises UserError."""
        trait = self._configurable().get(name)
        if trait is None:
            raise UserError(no_setting(name, self._configurable()), hint="%config lists all")
        if trait.metadata.get("fixed"):
            raise UserError(
                f"{name} cannot change while the kernel runs",
                hint=f"add --CRKernel.{name}=... to the kernelspec's argv, {_RESTART}",
            )
        try:
            setattr(self, name, trait.from_string(text))
        except (TraitError, ValueError) as error:
            raise UserError(str(error), hint=trait.help) from error
        self.settings_changed()
        shown = show(getattr(self, name))
        if trait.metadata.get("at_once"):
            return f"{name} = {shown}, from the next cell on"
        return f"{name} = {shown}, for guests started from now on: %reset starts one"

    def settings_changed(self) -> None:
        """Called when one was set."""

    def audience(self, cell_id: str | None, can_answer: bool, typed: bool) -> Audience:
        """Who sees what a cell shows: notebooks name their cells, consoles can be asked for input,
        and whatever else sends cells (nbconvert, say) does neither. `typed`: it has asked whether
        code is complete, as front ends do where a person types Enter; a program that just has not
        said that it takes no questions wants its results as plain text."""
        if cell_id is not None:
            at: Place = "notebook"
        else:
            at = "console" if can_answer else "unattended"
        if self.colors == "never":
            return Audience(at, "none")
        looked_at = at == "notebook" or (at == "console" and typed)
        return Audience(at, "all" if looked_at or self.colors == "always" else "errors")

    def limits(self) -> Limits:
        """What the guest may use."""
        return Limits(
            self.memory,
            self.max_processes,
            self.file_size,
            self.disk_size,
            self.staging_size,
            self.cpus,
        )

    @classmethod
    def _configurable(cls) -> dict[str, Any]:
        """The traits of ours, without those of ipykernel."""
        return Settings.class_own_traits(config=True)


def show(value: Any) -> str:
    """A setting's value as it would be written."""
    if isinstance(value, int) and value >= 1 << 20:
        for unit in "TGM":
            if value % _UNITS[unit] == 0:
                return f"{value // _UNITS[unit]}{unit}"
        return f"{value >> 20}M"
    return str(value)


_RESTART = "then restart the kernel"
