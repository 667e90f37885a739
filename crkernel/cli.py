"""The `crkernel` command: one function per verb.

Exit codes: 0 done; 1 a check or a cell failed; 2 to 5 as in `errors`, 2 also for wrong usage; 130
stopped by Ctrl-C. Imports are inside the verbs, so that `--version` and completion answer at once.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from crkernel import __version__
from crkernel.errors import CRKernelError, EngineUnavailable, NoSpace, UserError
from crkernel.lines import Lines

if TYPE_CHECKING:
    from crkernel.engines.docker.images import DockerImage

_PROGRAM = "crkernel"
_COMPLETION_VARIABLE = "_CRKERNEL_COMPLETE"
_PATIENCE = 1.0  # seconds for a daemon, while somebody waits for a completion
_COMPLETION_PLACES = {
    "bash": "~/.local/share/bash-completion/completions/crkernel",
    "zsh": "a file _crkernel in a folder of $fpath",
    "fish": "~/.config/fish/completions/crkernel.fish",
}


def main() -> NoReturn:
    """The console script: errors of our tree become two lines on stderr and an exit code."""
    try:
        code = cli.main(prog_name=_PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say(f"{_PROGRAM}: stopped")
        sys.exit(130)
    except CRKernelError as error:
        sys.exit(_complain(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left for stdout goes nowhere
        what = error.filename or "the output"
        full = NoSpace(f"cannot write {what}: {error.strerror}", hint="free some space there")
        sys.exit(_complain(full))
    sys.exit(code if isinstance(code, int) else 0)


_say = Lines().say
"""Of progress and errors."""


def _complain(error: CRKernelError) -> int:
    """Two lines; the exit code."""
    _say(f"{_PROGRAM}: {error.message}")
    if error.hint:
        _say(f"  hint: {error.hint}")
    return error.exit_code


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=_PROGRAM)
@click.pass_context
def cli(context: click.Context) -> None:
    """A Jupyter kernel for JavaScript that rewinds to the state after any cell."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _engines(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """For completion: what begins so."""
    from crkernel import registration

    return [name for name in registration.ENGINES if name.startswith(begun)]


def _kernels(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The same of registered kernels."""
    from crkernel import registration

    return [name for name in registration.names() if name.startswith(begun)]


def _digests(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The same of images; of Docker's the tags, if a daemon answers."""
    from crkernel import image

    if context.params.get("engine") == "docker":
        names = _tags()
    else:
        names = [info.digest for info in image.images()]
    return [name for name in names if name.startswith(begun)]


def _tags() -> list[str]:
    from crkernel.engines.docker.endpoint import Endpoint

    try:
        Endpoint.find().knock(_PATIENCE)
        return [found.tag for found in _docker_images()]
    except (CRKernelError, ImportError, OSError, ValueError):
        return []  # completion is no place for complaints


@cli.command()
@click.option("--user", is_flag=True, help="For this user (the default outside of environments).")
@click.option("--sys-prefix", is_flag=True, help="For this Python environment (its default).")
@click.option("--prefix", type=click.Path(path_type=Path), help="Below PATH/share/jupyter.")
@click.option("--name", help="The kernel's name: crkernel, or crkernel-docker.")
@click.option("--display-name", help="What front ends call it.")
@click.option(
    "--engine", shell_complete=_engines, help="Where sandboxes run: auto, local or docker."
)
def install(
    user: bool,
    sys_prefix: bool,
    prefix: Path | None,
    name: str | None,
    display_name: str | None,
    engine: str | None,
) -> None:
    """Register the kernel with Jupyter and print where."""
    from crkernel import registration

    prefix = _place(user, sys_prefix, prefix)
    if prefix is None and not user and sys.prefix != sys.base_prefix:
        prefix = Path(sys.prefix)
    folder = registration.register(
        name=name, display_name=display_name, engine=engine, user=prefix is None, prefix=prefix
    )
    click.echo(folder)


def _place(user: bool, sys_prefix: bool, prefix: Path | None) -> Path | None:
    """The prefix that was asked for, if one was; `UserError` for more than one place."""
    if user + sys_prefix + (prefix is not None) > 1:
        raise UserError("more than one place", hint="give one of --user, --sys-prefix, --prefix")
    return Path(sys.prefix) if sys_prefix else prefix


@cli.command()
@click.option("--user", is_flag=True, help="The one of this user.")
@click.option("--sys-prefix", is_flag=True, help="The one of this Python environment.")
@click.option("--prefix", type=click.Path(path_type=Path), help="Below PATH/share/jupyter.")
@click.option(
    "--name",
    default="crkernel",
    show_default=True,
    shell_complete=_kernels,
    help="The kernel's name.",
)
def uninstall(user: bool, sys_prefix: bool, prefix: Path | None, name: str) -> None:
    """Remove a registration, by default the one that Jupyter uses.

    Prints which it was.
    """
    from crkernel import registration

    prefix = _place(user, sys_prefix, prefix)
    click.echo(f"removed {registration.unregister(name, user=user, prefix=prefix)}")
    if left := registration.find(name):
        click.echo(f"another registration of {name} is left: {left.folder}", err=True)


@cli.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where the executed notebook goes; by default beside it, as STEM.executed.ipynb.",
)
def run(notebook: Path, output: Path | None) -> int:
    """Execute a notebook, unattended, and write it with its outputs.

    Stops at the first cell that fails, with exit code 1; what was executed is written even then.
    """
    from crkernel.unattended import run_notebook

    output = output or notebook.with_name(f"{notebook.stem}.executed.ipynb")
    return 0 if run_notebook(notebook, output, _say) else 1


_ENGINE = click.option(
    "--engine", type=click.Choice(["local", "docker"]), help="Which engine's: local or docker."
)


@cli.command()
@_ENGINE
def doctor(engine: str | None) -> int:
    """Check all prerequisites, and prove that checkpoints work here."""
    from crkernel.doctor import examine

    return 0 if examine(click.echo, engine or "local") else 1


@cli.group("image")
def image_group() -> None:
    """Build, list and remove the images that sandboxes run from."""


@image_group.command("build")
@_ENGINE
@click.option("--force", is_flag=True, help="Build it even if it is up to date.")
@click.option(
    "--from-tree", is_flag=True, help="Docker gets the local image's tree, and builds nothing."
)
@click.option("--network", help="The network of Docker's build, e.g. host.")
def build_image(engine: str | None, force: bool, from_tree: bool, network: str | None) -> None:
    """Build the image unless it is up to date; print where it is.

    Docker builds it on Debian's image; where it reaches no registry it gets the local image's tree.
    """
    import asyncio

    place: Path | str
    if engine == "docker":
        from crkernel.engines.docker import build as docker_build

        place = docker_build.build(_say, force=force, from_tree=from_tree, network=network)
        there = False  # only a session finds out
    else:
        from crkernel import image_build

        if from_tree or network:
            raise UserError("--from-tree and --network are Docker's", hint="add --engine docker")
        place = image_build.build(_say, force=force)
        there = _has_golden_root(place)
    try:
        if not there and asyncio.run(_make_golden_root(engine or "local")):
            _say("made the golden root, from which kernels start")
    except CRKernelError as error:
        _say(f"the golden root is left to the first kernel: {error}")
    click.echo(place)


@image_group.command("context")
def write_context() -> None:
    """Write what `docker build` takes, as a tar archive.

    It holds the Dockerfile with the recipe's data. Says under which name kernels look for the
    image.
    """
    from crkernel.engines.docker import archive, build, images

    command = f"docker build --tag {images.base_tag()} -"
    if sys.stdout.isatty():
        hint = f"run: crkernel image context | {command}"
        raise UserError("an archive is nothing for a terminal", hint=hint)
    _say(f"for {command}")
    with archive.streamed(build.context(_say)) as blocks:
        sys.stdout.buffer.writelines(blocks)


def _has_golden_root(path: Path) -> bool:
    """Whether an image has one for the usual limits, found out without a session."""
    from crkernel import golden_root
    from crkernel.engines import Limits
    from crkernel.guest import processor
    from crkernel.javascript import JAVASCRIPT

    return (
        path / "golden" / golden_root.key(JAVASCRIPT, Limits.default(), processor.identity())
    ).is_dir()


async def _make_golden_root(engine: str) -> bool:
    """Keep the root of a session under the usual limits with the image; False if it is there."""
    from crkernel.engines import Limits, open_engine
    from crkernel.javascript import JAVASCRIPT
    from crkernel.session import Session

    session = Session(open_engine(engine, Limits.default()), JAVASCRIPT)
    try:
        await session.start()
        return await session.keep_golden()
    finally:
        await session.close()


@image_group.command("list")
@_ENGINE
def list_images(engine: str | None) -> None:
    """List the images: name, size, when built, place."""
    if engine != "docker":
        _list_local()
    if engine != "local":
        _list_docker(asked_for=engine == "docker")


def _list_local() -> None:
    from crkernel import image

    infos = image.images()
    if not infos:
        hint = f"build one with: {image.BUILD_COMMAND}"
        click.echo(f"there are no images in {image.images_dir()}; {hint}", err=True)
    for info in infos:
        if info.damaged:
            click.echo(f"{info.digest}  damaged: remove it, or build it with --force  {info.path}")
            continue
        _list_one(info.digest, info.size, info.created, info.current, str(info.path))


def _docker_images() -> list[DockerImage]:
    """Those in the daemon. Raises EngineUnavailable."""
    import asyncio

    from crkernel.engines.docker import images
    from crkernel.engines.docker.daemon import Daemon

    async def look() -> list[DockerImage]:
        return await images.listed(await Daemon.connect())

    return asyncio.run(look())


def _list_docker(*, asked_for: bool) -> None:
    from crkernel.engines.docker import images

    try:
        found = _docker_images()
        if asked_for and not found:
            _say(f"there are no images in Docker; build one with: {images.BUILD_COMMAND}")
        for one in found:
            _list_one(one.tag, one.size, one.created, one.current, "in Docker")
    except EngineUnavailable:
        if asked_for:
            raise


def _list_one(name: str, size: int, created: float, current: bool, place: str) -> None:
    import time

    built = time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
    state = "current" if current else "old"
    click.echo(f"{name}  {size / 1e6:5.0f} MB  {built}  {state:7}  {place}")


@image_group.command("rm")
@click.argument("digest", required=False, shell_complete=_digests)
@click.option("--all-old", is_flag=True, help="Remove all but the current recipe's image.")
@_ENGINE
def remove_images(digest: str | None, all_old: bool, engine: str | None) -> int:
    """Remove one image, or all that the current recipe does not need.

    Docker's too with --engine docker, by their tags.
    """
    from crkernel import image, image_build

    if (digest is None) != all_old:
        raise UserError("which image?", hint="give a digest of `crkernel image list`, or --all-old")
    if engine == "docker":
        import asyncio

        from crkernel.engines.docker import images

        gone, refused = asyncio.run(images.remove(digest))
        for tag in gone:
            click.echo(f"removed {tag}")
        return max((_complain(error) for error in refused), default=0)
    doomed = [digest] if digest else [info.digest for info in image.images() if not info.current]
    code = 0
    for name in doomed:
        try:
            image_build.remove(name)
            click.echo(f"removed {name}")
        except CRKernelError as error:  # no reason to keep the others
            code = _complain(error)
    return code


@cli.command("pool")
@_ENGINE
@click.option("--empty", is_flag=True, help="End them, but for one that a kernel takes meanwhile.")
def list_pool(engine: str | None, empty: bool) -> None:
    """List what waits for kernels of this user.

    These are nests, and containers in Docker. Kernels with the setting `pool` make them; one for
    which none comes goes after an hour.
    """
    import asyncio

    from crkernel.engines import local_pool

    async def show(pool: Any) -> None:
        if empty:
            for one, ended in await pool.empty():
                state = "ended" if ended else "a kernel has it, or it does not answer"
                click.echo(f"{one.name}  {one.image}  {state}")
            return
        for one in await pool.listed():
            click.echo(f"{one.name}  {one.image}  {one.age / 60:.0f} min old")

    if engine != "docker":
        asyncio.run(show(local_pool))
    if engine != "local":
        try:
            from crkernel.engines.docker import pool

            asyncio.run(show(pool))
        except EngineUnavailable:
            if engine == "docker":
                raise


@cli.command()
@click.argument("shell", type=click.Choice(sorted(_COMPLETION_PLACES)))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    # On stderr, so that the script alone can be redirected.
    click.echo(f"# put this into {_COMPLETION_PLACES[shell]}", err=True)
    click.echo(script(cli, {}, _PROGRAM, _COMPLETION_VARIABLE).source())
