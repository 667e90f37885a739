"""The kernelspec: registers crkernel with Jupyter, finds and removes its registrations.

Used by the CLI and the doctor; the files come from the repository's folder `kernelspec/`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_core.paths import jupyter_data_dir
from traitlets import TraitError

from crkernel import image
from crkernel.errors import EngineUnavailable, UserError

DEFAULT_NAME = "crkernel"
ENGINES = ("auto", "local", "docker")


@dataclass(frozen=True)
class Registration:
    """One kernelspec that starts crkernel."""

    name: str
    folder: Path
    python: str
    arguments: tuple[str, ...] = ()

    def require_python(self) -> None:
        """`EngineUnavailable` if the Python that runs its kernels is gone."""
        path = Path(self.python)  # others, as `python`, are Jupyter's to find
        if path.is_absolute() and not path.exists():
            engine = self.setting("engine")
            words = f" --engine {engine}" if engine else ""
            words += f" --name {self.name}" if self.name != name_for(engine) else ""
            raise EngineUnavailable(
                f"{self.folder} names a Python that is gone: {path}",
                hint=f"run: crkernel install{words}",
            )

    def setting(self, name: str) -> str | None:
        """What its kernels are told that a setting is."""
        prefix = f"--CRKernel.{name}="
        found = [word.removeprefix(prefix) for word in self.arguments if word.startswith(prefix)]
        return found[-1] if found else None


def name_for(engine: str | None) -> str:
    """The name under which a kernel with an engine is registered."""
    return f"{DEFAULT_NAME}-docker" if engine == "docker" else DEFAULT_NAME


def register(
    *,
    name: str | None = None,
    display_name: str | None = None,
    engine: str | None = None,
    user: bool = False,
    prefix: Path | None = None,
) -> Path:
    """Write a kernelspec that runs crkernel with this Python, and say where it is.

    Without a name it is that of the engine; two engines can stand side by side. It goes below
    `prefix`, into the user's own folder, or else to where all users of the system find it.
    `UserError` for a name, engine or folder that does not do.
    """
    spec = json.loads((_source() / "kernel.json").read_text())
    spec["argv"][0] = sys.executable
    if engine == "docker":
        display_name = display_name or f"{spec['display_name']} in Docker"
    name = name or name_for(engine)
    if display_name:
        spec["display_name"] = display_name
    if engine:
        if engine not in ENGINES:
            raise EngineUnavailable(
                f"there is no engine {engine!r}", hint=f"engines: {', '.join(ENGINES)}"
            )
        spec["argv"].append(f"--CRKernel.engine={engine}")
    with tempfile.TemporaryDirectory(prefix="crkernel-") as scratch:
        folder = Path(scratch) / "kernelspec"
        shutil.copytree(_source(), folder)
        (folder / "kernel.json").write_text(json.dumps(spec, indent=2) + "\n")
        try:
            return Path(
                _manager().install_kernel_spec(
                    str(folder), kernel_name=name, user=user, prefix=str(prefix) if prefix else None
                )
            )
        except ValueError as error:
            raise UserError(
                f"{name!r} cannot be a kernel's name", hint="use letters, digits, '.', '-' and '_'"
            ) from error
        except OSError as error:
            where, why = error.filename or prefix, error.strerror
            if isinstance(error, shutil.Error):  # of several files, each with a reason
                _, where, why = error.args[0][0]
            raise UserError(
                f"cannot write to {where}: {why}",
                hint="choose another place: --user, --sys-prefix or --prefix PATH",
            ) from error


def find(
    name: str = DEFAULT_NAME, *, user: bool = False, prefix: Path | None = None
) -> Registration | None:
    """The registration that Jupyter, run by this Python, uses for a name; None if none of ours.

    With `user` or `prefix` the one in that place alone, which another may hide from Jupyter.
    """
    manager = _manager()
    if user or prefix:
        data = prefix / "share" / "jupyter" if prefix else Path(jupyter_data_dir())
        manager.kernel_dirs = [str(data / "kernels")]
    spec = _spec(name, manager)
    if spec is None or spec.argv[1:3] != ["-m", "crkernel"]:
        return None
    python, *arguments = map(str, spec.argv)
    return Registration(name, Path(spec.resource_dir), python, tuple(arguments[2:]))


def names() -> list[str]:
    """Under which Jupyter finds kernels of ours; a damaged registration is none."""
    found = []
    for name in _manager().find_kernel_specs():
        try:
            found += [name] if find(name) else []
        except UserError:
            continue
    return sorted(found)


def language(name: str) -> str | None:
    """The language of a kernel, ours or not, that is registered under a name; None without one."""
    spec = _spec(name, _manager())
    return str(spec.language) if spec else None


def _manager() -> KernelSpecManager:
    """Which takes a home for granted; `EngineUnavailable` without one."""
    image.user_home()
    return KernelSpecManager()


def _spec(name: str, manager: KernelSpecManager) -> KernelSpec | None:
    """What is registered under a name; `UserError` if its file is damaged."""
    try:
        return manager.get_kernel_spec(name)
    except NoSuchKernel:
        return None
    except (OSError, ValueError, TypeError, TraitError) as error:
        folder = manager.find_kernel_specs().get(name.lower(), name)
        raise UserError(
            f"{folder}/kernel.json cannot be read: {error}",
            hint="mend it, or delete the folder and run: crkernel install",
        ) from error


def unregister(name: str = DEFAULT_NAME, *, user: bool = False, prefix: Path | None = None) -> Path:
    """Remove the registration that `find` gives, and say where it was; `UserError` if none."""
    registration = find(name, user=user, prefix=prefix)
    if registration is None:
        where = " there" if user or prefix else ""
        raise UserError(
            f"no kernel of crkernel is registered{where} as {name!r}",
            hint="see: jupyter kernelspec list",
        )
    try:
        shutil.rmtree(registration.folder)
    except OSError as error:
        raise UserError(
            f"cannot remove {error.filename}: {error.strerror}", hint="run this with sudo"
        ) from error
    return registration.folder


def _source() -> Path:
    """The kernelspec's files: in the package when installed, in the repository when editable."""
    package = Path(__file__).parent
    installed = package / "kernelspec"
    return installed if installed.is_dir() else package.parent / "kernelspec"
