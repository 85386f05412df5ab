"""Run a plan with ansible-runner, and pass on what happens as it happens."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roost import content
from roost.errors import RoostError
from roost.events import Event, History, Kind, Outcome
from roost.inventory import ansible_environment
from roost.paths import Paths
from roost.plan import RunPlan
from roost.workspace import Workspace

KEPT_RUNS = 10
# Where the callback lies that records what tasks leave behind.
CALLBACKS = Path(__file__).resolve().parent / "callbacks"
_COUNTS = ("ok", "changed", "failures", "dark", "skipped", "rescued", "ignored")


class Runs:
    """The private folder of a workspace's runs: artifacts of the last ones, and their times.

    Args:
        workspace: whose runs.
        paths: for the state folder.
    """

    def __init__(self, workspace: Workspace, paths: Paths) -> None:
        name = hashlib.sha256(str(workspace.root).encode()).hexdigest()[:12]
        self.folder = paths.state / "runs" / name

    def prepare(self) -> None:
        """Make the folder, readable by its owner alone: artifacts can hold secrets.

        Raises:
            RoostError: it cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise RoostError(
                f"{self.folder} cannot be written: {error.strerror}",
                fix="free some space, or set XDG_STATE_HOME to a folder that can be written",
            ) from error

    def history(self, plan: RunPlan) -> History:
        """How long the steps of this playbook took last time."""
        try:
            data = json.loads(self._times(plan).read_text("utf-8"))
            return History({str(k): float(v) for k, v in data.items()})
        except (OSError, ValueError, AttributeError):
            return History()

    def remember(self, plan: RunPlan, outcome: Outcome) -> None:
        """Keep the times of a complete run for the next one."""
        complete = not (plan.tags or outcome.interrupted or outcome.failed or outcome.unreachable)
        if complete and outcome.steps:
            with contextlib.suppress(OSError):
                self._times(plan).write_text(json.dumps(outcome.steps), "utf-8")

    def _times(self, plan: RunPlan) -> Path:
        mode = "check" if plan.check else "run"
        name = Path(plan.playbook).name.removesuffix(".yml")
        return self.folder / f"times-{name}-{mode}.json"


def run(
    plan: RunPlan,
    *,
    workspace: Workspace,
    paths: Paths,
    environ: Mapping[str, str],
    listen: Callable[[Event], None],
    become_password: str | None = None,
) -> Outcome:
    """Carry ``plan`` out and return how it ended.

    The first Ctrl-C lets Ansible end by itself, the second one kills it.

    Args:
        plan: what to do.
        workspace: where.
        paths: where artifacts and sockets are kept.
        environ: the environment of the call.
        listen: is called with every event, in the order in which they come.
        become_password: for sudo; typed at Ansible's own prompt, so that it stands in no
            argument, file or environment.

    Raises:
        RoostError: the run could not be started.
    """
    import ansible_runner

    runs = Runs(workspace, paths)
    runs.prepare()
    outcome = Outcome()
    reader = _Reader(outcome, listen)
    ident = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    artifacts = runs.folder / "artifacts" / ident
    record = runs.folder / f"record-{ident}"
    begun = time.monotonic()
    with _interrupts(reader):
        try:
            result = ansible_runner.run(
                private_data_dir=str(runs.folder),
                project_dir=str(workspace.root),
                playbook=plan.playbook,
                cmdline=_arguments(plan, ask=become_password is not None),
                envvars=_environment(workspace, environ) | _recording(workspace, record),
                passwords={r"^BECOME password[^:]*:\s*?$": become_password or ""},
                settings={"pexpect_timeout": 1},
                forks=plan.forks,
                ident=ident,
                rotate_artifacts=KEPT_RUNS,
                suppress_env_files=True,
                fact_cache_type="memory",
                quiet=True,
                event_handler=reader.take,
                cancel_callback=lambda: reader.kill,
            )
        finally:
            # The runner writes the whole environment there, tokens included.
            (artifacts / "command").unlink(missing_ok=True)
            shutil.rmtree(artifacts / "fact_cache", ignore_errors=True)
            with contextlib.suppress(OSError):
                outcome.record = record.read_text("utf-8")
                record.unlink()
    outcome.seconds = time.monotonic() - begun
    outcome.interrupted = reader.interrupted
    nothing_said = not (outcome.failed or outcome.unreachable or outcome.interrupted)
    if result.rc != 0 and nothing_said:
        outcome.complaint = reader.complaint() or f"ansible-playbook ended with {result.rc}"
    runs.remember(plan, outcome)
    return outcome


def _arguments(plan: RunPlan, *, ask: bool) -> str:
    # The runner splits this like a shell; names of boxes and tags have no blanks in Ansible.
    words = []
    if plan.limited:
        words += ["--limit", ",".join(plan.boxes)]
    if plan.tags:
        words += ["--tags", ",".join(plan.tags)]
    words += ["--check"] * plan.check + ["--diff"] * plan.diff + ["--ask-become-pass"] * ask
    return " ".join(words)


def _environment(workspace: Workspace, environ: Mapping[str, str]) -> dict[str, str]:
    env = ansible_environment(workspace, environ)
    # Ansible's programs lie beside our Python, which is not on the PATH under pipx or uv.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    env.setdefault("ANSIBLE_SSH_COMMON_ARGS", f"-F '{workspace.ssh_config}'")
    return env


def _recording(workspace: Workspace, record: Path) -> dict[str, str]:
    """Have every task written down for the seal of the box."""
    roots = (workspace.root.resolve(), content.collection_root().resolve())
    return {
        "ROOST_RECORD": str(record),
        "ROOST_RECORD_ROOTS": os.pathsep.join(map(str, roots)),
        "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
    }


class _Reader:
    """Turns the runner's dictionaries into events."""

    def __init__(self, outcome: Outcome, listen: Callable[[Event], None]) -> None:
        self._outcome = outcome
        self._listen = listen
        self._text: list[str] = []
        self.pid: int | None = None
        self.interrupted = False
        self.kill = False

    def take(self, raw: Mapping[str, Any]) -> bool:
        """Pass one of the runner's events on; False tells the runner not to keep it as a file."""
        if self.pid is None and raw.get("pid"):
            self.pid = raw["pid"]
            if self.interrupted:
                self._stop_ansible()
        for event in translate(raw):
            if event.kind is Kind.TEXT:
                self._text.append(event.message)
            self._outcome.add(event)
            self._listen(event)
        return True

    def complaint(self) -> str:
        """What Ansible wrote beside its events, where that says why it stopped."""
        lines = "\n".join(self._text).splitlines()
        errors = [n for n, line in enumerate(lines) if line.startswith(("[ERROR]", "ERROR!"))]
        if not errors:
            return "\n".join(lines[-5:]).strip()
        said = [line for line in lines[errors[0] : errors[0] + 6] if line.strip()]
        return "\n".join(said).removeprefix("[ERROR]: ").removeprefix("ERROR! ")

    def interrupt(self, *_: object) -> None:
        """Handle SIGINT: ask Ansible to stop; when asked again, make the runner kill it."""
        self.kill = self.interrupted
        self.interrupted = True
        # Before its first event nobody knows its process id; then that event stops it.
        if self.pid is not None:
            self._stop_ansible()

    def _stop_ansible(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)


@contextlib.contextmanager
def _interrupts(reader: _Reader) -> Iterator[None]:
    before = {s: signal.signal(s, reader.interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def translate(raw: Mapping[str, Any]) -> Iterator[Event]:
    """One event of ansible-runner's as events of ours (none where it tells nothing new)."""
    data = raw.get("event_data") or {}
    name = str(raw.get("event", ""))
    common: dict[str, Any] = {
        "box": str(data.get("host", "")),
        "role": str(data.get("role", "")).rpartition(".")[2],
        "task": str(data.get("task", "")),
    }
    if name in {"playbook_on_task_start", "playbook_on_handler_task_start"}:
        yield Event(Kind.TASK, **(common | {"box": ""}))
    elif name == "runner_on_start":
        yield Event(Kind.START, **common)
    elif name == "playbook_on_stats":
        yield Event(Kind.STATS, stats=_stats(data))
    elif name in {"verbose", "error", "warning", "deprecated", "system_warning"}:
        if str(raw.get("stdout", "")).strip():
            yield Event(Kind.TEXT, message=str(raw["stdout"]))
    elif name.startswith("runner_on_") and name.removeprefix("runner_on_") in _RESULTS:
        result = data.get("res") or {}
        kind = _RESULTS[name.removeprefix("runner_on_")]
        # What no_log hides keeps only the line that Ansible prints for it.
        hidden = "censored" in result and "changed: [" in str(raw.get("stdout", ""))
        if kind is Kind.OK and (result.get("changed") or hidden):
            kind = Kind.CHANGED
        elif kind is Kind.FAILED and data.get("ignore_errors"):
            kind = Kind.IGNORED
        bad = kind in {Kind.FAILED, Kind.IGNORED, Kind.UNREACHABLE}
        yield Event(
            kind,
            **common,
            begun=_time(data.get("start")),
            seconds=float(data.get("duration") or 0.0),
            message=_message(result) if bad else "",
            detail=_detail(result) if bad else "",
            diff=_diff(result),
        )


_RESULTS = {
    "ok": Kind.OK,
    "failed": Kind.FAILED,
    "skipped": Kind.SKIPPED,
    "unreachable": Kind.UNREACHABLE,
}


def _time(text: object) -> float:
    """Seconds since 1970 of a time as the runner writes it: ISO 8601, in UTC."""
    if not text:
        return 0.0
    moment = datetime.fromisoformat(str(text))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _stats(data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    hosts = {host for count in _COUNTS for host in data.get(count) or {}}
    hosts.update(data.get("processed") or {})
    return {host: {c: (data.get(c) or {}).get(host, 0) for c in _COUNTS} for host in sorted(hosts)}


def _message(result: Mapping[str, Any]) -> str:
    failed = [r for r in result.get("results") or [] if isinstance(r, dict) and r.get("failed")]
    if failed:
        return "; ".join(dict.fromkeys(_message(r) for r in failed))
    msg = result.get("msg") or result.get("censored") or result.get("stderr") or ""
    return "\n".join(map(str, msg)) if isinstance(msg, list) else str(msg).strip()


def _detail(result: Mapping[str, Any]) -> str:
    parts = [
        str(result.get(key) or "").strip()
        for key in ("module_stderr", "module_stdout", "stderr", "stdout")
    ]
    for one in result.get("results") or []:
        if isinstance(one, dict) and one.get("failed"):
            parts.append(_detail(one))
    return "\n".join(dict.fromkeys(p for p in parts if p))


def _diff(result: Mapping[str, Any]) -> str:
    diffs = result.get("diff") or []
    text = []
    for one in diffs if isinstance(diffs, list) else [diffs]:
        if not isinstance(one, dict):
            continue
        if one.get("prepared"):
            text.append(str(one["prepared"]))
            continue
        before, after = (_lines(one.get(side)) for side in ("before", "after"))
        old, new = (str(one.get(f"{side}_header") or side) for side in ("before", "after"))
        text.append("".join(difflib.unified_diff(before, after, old, new)))
    for inner in result.get("results") or []:
        if isinstance(inner, dict):
            text.append(_diff(inner))
    return "".join(t for t in text if t.strip())


def _lines(value: object) -> list[str]:
    if isinstance(value, (dict, list)):
        value = json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"
    return str(value or "").splitlines(keepends=True)
