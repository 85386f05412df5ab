"""What the verbs share that look after the user's own ssh config."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from roost.errors import RoostError

if TYPE_CHECKING:
    from roost.cli.context import Context
    from roost.model import Fleet
    from roost.ssh_include import UserConfig


def user_config(ctx: Context, named: str | None = None) -> UserConfig:
    """The user's ssh config: the one that is named, else the one that ssh reads.

    Raises:
        RoostError: $HOME is not the home that ssh goes by, and no file is named.
    """
    from roost.ssh_include import UserConfig

    if named:
        return UserConfig((ctx.cwd / Path(named).expanduser()).absolute(), ctx.paths)
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    if not same_home(ctx):
        raise RoostError(
            f"$HOME is {ctx.paths.home}, and ssh takes {home} from the password database",
            fix="name the config to work on: --config FILE",
        )
    return UserConfig(home / ".ssh" / "config", ctx.paths)


def same_home(ctx: Context) -> bool:
    """Whether $HOME is the home that ssh goes by."""
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    return home.resolve() == ctx.paths.home.resolve()


def text_for(ctx: Context, fleet: Fleet) -> str:
    """The hosts of the workspace as the user's own ssh is to see them: by their names."""
    from roost import ssh
    from roost.ssh_config import Settings, render

    workspace = ctx.workspace()
    return render(
        fleet,
        Settings(
            known_hosts=workspace.root.absolute() / "known_hosts",
            control_dir=ssh.ensure_control_dir(ctx.paths),
            source=str(workspace.root.absolute()),
        ),
    )


def refresh(ctx: Context, fleet: Fleet) -> None:
    """Bring both renderings up to date: the workspace's own, and the user's where installed."""
    from roost import ssh
    from roost.ssh_include import UserConfig

    ssh.ensure_config(ctx.workspace().root, fleet, ctx.paths)
    # The place of the user's config does not matter for what lies in roost's own folder.
    user = UserConfig(ctx.paths.home / ".ssh" / "config", ctx.paths)
    if user.file_for(ctx.workspace().root).is_file():
        user.write(ctx.workspace().root, text_for(ctx, fleet))
