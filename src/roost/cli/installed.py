"""What the verbs share that look after the user's own ssh config."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from roost.errors import RoostError

if TYPE_CHECKING:
    from roost.cli.context import Context
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
