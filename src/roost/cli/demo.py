"""``roost demo``: a throwaway box, provisioned, with a notebook and a job running on it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from roost.errors import ExitCode, InterruptedRunError, RoostError

if TYPE_CHECKING:
    from roost.cli.context import Context
    from roost.model import Box
    from roost.sandbox import Sandbox

NAME = "demo"
JOB = "train"

# What is computed in the cell; the answer says on which machine that was.
CELL = "import platform; print(sum(n * n for n in range(1000)), 'on', platform.node())"
SUM = str(sum(n * n for n in range(1000)))

TRAINING = """\
import time
for epoch in range(1, 6):
    time.sleep(0.3)
    print(f"epoch {epoch}/5  loss {1 / epoch:.3f}", flush=True)
"""


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "demo",
        parents=[common],
        help="a throwaway box, provisioned, with a notebook and a job on it",
        description="Start a throwaway box in a container, provision it over real ssh, and use "
        "it: JupyterLab through a tunnel, a cell that computes, a job with its log. The box "
        "stays up; your own ssh config is not touched. Again is quick and harmless.",
    )
    parser.add_argument("--os", metavar="OS", help="what the box runs (see: roost sandbox up -h)")
    parser.add_argument("--down", action="store_true", help="remove all that the demo made")
    parser.add_argument(
        "--purge", action="store_true", help="with --down: the images that roost built, too"
    )
    parser.set_defaults(handler=demo)


def demo(ctx: Context, args: argparse.Namespace) -> int:
    """Carry the demo out, or take it back."""
    from roost.errors import UsageError
    from roost.sandbox import Sandbox

    if args.purge and not args.down:
        raise UsageError("--purge goes with --down")
    sandbox = Sandbox(ctx.paths, NAME, environ=ctx.environ, note=ctx.out.note)
    ctx = ctx.but(workspace_flag=str(sandbox.root))
    if args.down:
        return _down(ctx, sandbox, purge=args.purge)
    with _step(ctx, 1, "a throwaway box"):
        box = sandbox.up([NAME], os=args.os)[0]
        ctx.out.note(f"{box.name}: {box.release} at {box.user}@{box.host} port {box.port}")
    with _step(ctx, 2, "provision it over ssh, by Ansible"):
        from roost.cli.up import carry_out, conclude

        conclude(ctx, carry_out(ctx, [NAME]))
    with _step(ctx, 3, "reach it by its name"):
        _show_ssh(ctx)
    with _step(ctx, 4, "JupyterLab on the box, through a tunnel"):
        _connect(ctx)
    with _step(ctx, 5, "a job in tmux, with its log"):
        _run_job(ctx)
    _closing(ctx)
    return ExitCode.OK


@contextmanager
def _step(ctx: Context, number: int, title: str) -> Iterator[None]:
    ctx.out.note(f"\n[{number}/5] {title}")
    try:
        yield
    except InterruptedRunError as error:
        error.fix = "the same command goes on from there"
        raise


def _down(ctx: Context, sandbox: Sandbox, *, purge: bool) -> int:
    from roost.tunnels import Tunnels

    Tunnels(ctx.paths, ctx.environ).forget(sandbox.workspace.ssh_config, NAME)
    removed = sandbox.down(purge=purge)
    _forget(ctx, sandbox, purge=purge)
    for name in removed:
        ctx.out.line(name)
    ctx.out.note("the demo is gone" if removed else "there is nothing to remove")
    return ExitCode.OK


def _forget(ctx: Context, sandbox: Sandbox, *, purge: bool) -> None:
    """Remove what stays on this side: logs of the runs, the remembered port, caches."""
    from roost.playbook import Runs
    from roost.tunnels import Tunnels

    workspace = sandbox.workspace
    shutil.rmtree(Runs(workspace, ctx.paths).folder, ignore_errors=True)
    if purge:
        shutil.rmtree(ctx.paths.cache / "inventory", ignore_errors=True)
    # Locks and logs of the supervisor: others may hold them while there are tunnels.
    tunnels = Tunnels(ctx.paths, ctx.environ)
    if not tunnels.list() and not list(tunnels.places.state.glob("*.json")):
        shutil.rmtree(tunnels.places.state, ignore_errors=True)
        shutil.rmtree(tunnels.places.runtime, ignore_errors=True)
    for top in (ctx.paths.state, ctx.paths.cache, ctx.paths.runtime):
        _remove_empty(top)


def _remove_empty(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()


def _show_ssh(ctx: Context) -> None:
    from roost import ssh

    config = ctx.workspace().ssh_config
    answer = ssh.run(config, _box(ctx), ["uname", "-nsrm"], fleet=ctx.fleet())
    ctx.out.note(f"ssh -F {ctx.paths.display(config)} {NAME} uname -nsrm")
    ctx.out.note(f"  {answer.stdout.strip()}")


def _connect(ctx: Context) -> None:
    from roost import lab as labs
    from roost.notebook import NotebookServer

    lab = labs.connect(
        _box(ctx),
        ctx.workspace().ssh_config,
        paths=ctx.paths,
        environ=ctx.environ,
        fleet=ctx.fleet(),
    )
    if lab.note:
        ctx.out.note(lab.note)
    ctx.out.note(f"JupyterLab answers at {lab.url}")
    with NotebookServer(f"http://127.0.0.1:{lab.port}", lab.token).kernel() as kernel:
        cell = kernel.execute(CELL)
    if cell.error or cell.text.split() != [SUM, "on", NAME]:
        raise RoostError(
            "the cell did not compute what it should", why=cell.error or repr(cell.text)
        )
    ctx.out.note(f"In  [1]: {CELL}")
    ctx.out.note(f"         {cell.text.strip()}")


def _run_job(ctx: Context) -> None:
    from roost import jobs
    from roost.cli.boxes import remote

    way = remote(ctx, NAME)
    earlier = [job for job in jobs.listing(way) if job.name == JOB and not job.over]
    for job in earlier:
        jobs.stop(way, job.id)
    job = jobs.start(way, ["python3", "-c", TRAINING], name=JOB, venv="default")
    job = jobs.wait(way, job.id)
    log = jobs.log(way, job.id)
    ctx.out.note("\n".join(f"  {line}" for line in log.splitlines()))
    if job.code != 0 or "epoch 5/5" not in log:
        raise RoostError(f"the job {JOB} ended with {job.code}")
    ctx.out.note(f"{JOB} ended with exit code 0; its log stays on the box")


def _box(ctx: Context) -> Box:
    return ctx.fleet().box(NAME)


def _closing(ctx: Context) -> None:
    roost = program()
    root = ctx.paths.display(ctx.workspace().root)
    # Alone on its line: a narrow terminal would break it inside a table.
    ctx.out.note(
        "\nThe box stays up. To work with it from here:\n\n"
        f"  export ROOST_WORKSPACE={root}\n\nTry next:\n"
    )
    ctx.out.table(
        ("COMMAND", "WHAT IT DOES"),
        [
            (f"{roost} lab {NAME}", "JupyterLab in the browser"),
            (f"{roost} shell {NAME}", "a tmux session that outlives the connection"),
            (f"{roost} run {NAME} -- python3 --version", "a job in the background"),
            (f"{roost} logs {NAME} {JOB}", "what the job printed"),
            (f"{roost} up", "provision again: nothing to do"),
            (f"{roost} ssh {NAME}", "plain ssh"),
            (f"{roost} demo --down --purge", "remove all of it (make demo-down)"),
        ],
    )


def program() -> str:
    """How roost was called, as it can be typed again from the same folder."""
    called = Path(sys.argv[0])
    if shutil.which(called.name) and Path(str(shutil.which(called.name))).samefile(called):
        return called.name
    relative = os.path.relpath(called)
    return relative if len(relative) < len(str(called)) else str(called)
