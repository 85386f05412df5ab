"""What is rendered, asked of OpenSSH itself: ``ssh -G -F``."""

from __future__ import annotations

import ipaddress
import os
import pwd
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roost.errors import InventoryError
from roost.model import Box, Fleet, Forward
from roost.paths import Paths
from roost.ssh import control_dir
from roost.ssh_config import (
    CONTROL_DIR_MAX,
    TUNNEL_SUFFIX,
    Settings,
    ambiguous_addresses,
    host_key_name,
    render,
)

Answer = dict[str, list[str]]
SEVERAL = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def ask(config: Path, name: str) -> Answer:
    """What ssh makes of ``name``."""
    done = subprocess.run(["ssh", "-G", "-F", config, name], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    found: Answer = defaultdict(list)
    for line in done.stdout.decode().split("\n"):
        key, _, value = line.partition(" ")
        found[key].append(value)
    return found


def write(folder: Path, fleet: Fleet, **changes: object) -> Path:
    path = folder / "ssh_config"
    chosen = {"known_hosts": folder / "known_hosts", **changes}
    path.write_text(render(fleet, Settings(**chosen)), "utf-8")  # type: ignore[arg-type]
    return path


# Everything but control characters and halves of surrogate pairs.
_any = st.characters(exclude_categories=("Cc", "Cs"))
_names = st.from_regex(r"\w[\w.+-]{0,12}", fullmatch=True).filter(lambda n: n.lower() != "none")
_domain = st.from_regex(r"[a-z][a-z0-9-]{0,8}(\.[a-z]{2,5}){0,2}", fullmatch=True)
_hosts = st.one_of(
    _domain,
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    st.just("fe80::1%eth0"),
)
_users = st.text(st.sampled_from("abzAZ09._-@\\ $+äß"), min_size=1, max_size=12).filter(
    lambda u: "${" not in u and u.strip() == u
)
_paths = st.tuples(
    st.sampled_from(["/", "~/", "/home/a b/", "/x%h/"]), st.text(_any, min_size=1, max_size=20)
).map("".join)
_literal_paths = _paths.filter(lambda p: "${" not in p)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    chosen = draw(st.lists(_names, min_size=1, max_size=4, unique_by=str.lower))
    boxes: list[Box] = []
    for at, name in enumerate(chosen):
        boxes.append(
            Box(
                name=name,
                host=draw(_hosts),
                port=draw(st.integers(1, 65535)),
                user=draw(st.one_of(st.just(""), _users)),
                via=draw(st.sampled_from(["", *chosen[:at]])),
                identity=draw(st.one_of(st.just(""), _literal_paths)),
            )
        )
    return Fleet(boxes=tuple(boxes))


def plain(text: str) -> str:
    """A host as ssh shows it; it writes addresses in a form of its own."""
    text = text.strip("[]").lower()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


@SEVERAL
@given(fleet=fleets(), known_hosts=_literal_paths)
def test_ssh_understands_what_the_inventory_says(
    fleet: Fleet, known_hosts: str, tmp_path: Path
) -> None:
    config = write(tmp_path, fleet, known_hosts=Path(known_hosts), control_dir=Path("/run/x y%"))
    for box in fleet.boxes:
        said = ask(config, box.name)
        assert list(map(plain, said["hostname"])) == [plain(box.host)]
        assert said["port"] == [str(box.port)]
        # ssh shows a name of digits alone in brackets.
        assert [jump.strip("[]") for jump in said["proxyjump"]] == ([box.via] if box.via else [])
        if box.user:
            assert said["user"] == [box.user]
        if box.identity:
            # Some versions show the path before the tokens are expanded, others after.
            home = pwd.getpwuid(os.getuid()).pw_dir
            shown = {box.identity.replace("%", "%%"), box.identity}
            shown |= {s.replace("~", home, 1) for s in shown if s.startswith("~/")}
            assert len(said["identityfile"]) == 1
            assert said["identityfile"][0] in shown
            assert said["identitiesonly"] == ["yes"]
        assert said["stricthostkeychecking"] in (["true"], ["yes"])
        assert said["controlmaster"] == ["auto"]
        assert said["controlpath"][0].startswith("/run/x y%/")
        if not known_hosts.startswith("~"):
            assert said["userknownhostsfile"] == [str(Path(known_hosts))]


@SEVERAL
@given(
    value=st.text(_any, max_size=30),
    where=st.sampled_from(["user", "identity", "host", "name", "via", "option", "known_hosts"]),
)
def test_any_text_is_rendered_faithfully_or_refused(value: str, where: str, tmp_path: Path) -> None:
    """No value, however odd, changes what another box gets or breaks the file."""
    odd = {
        "user": Box("odd", "h", user=value),
        "identity": Box("odd", "h", identity=value),
        "host": Box("odd", value),
        "name": Box(value, "h"),
        "via": Box("odd", "h", via=value),
        "option": Box("odd", "h", ssh_options=(("SetEnv", value),)),
        "known_hosts": Box("odd", "h"),
    }[where]
    safe = Box("safe", "192.0.2.1", 2222, "me")
    kept = Path("/" + value) if where == "known_hosts" else tmp_path / "known_hosts"
    try:
        config = write(tmp_path, Fleet(boxes=(odd, safe)), known_hosts=kept)
    except InventoryError:
        return
    if where == "option":
        # The value is ssh's own language; what ssh does not take fails for this file alone.
        return
    said = ask(config, "safe")
    assert (said["hostname"], said["port"], said["user"]) == (["192.0.2.1"], ["2222"], ["me"])


def test_forwards_are_in_the_second_alias_alone(tmp_path: Path) -> None:
    specs = [
        "8888:localhost:8888",
        "127.0.0.1:9000:[::1]:9000",
        "7000:/run/a b%.sock",
        "R:52698:localhost:52698",
        "R:52699:localhost:52699",
        "D:8157",
    ]
    box = Box(
        "gpu", "192.0.2.1", user="me",
        forwards=tuple(Forward.parse(spec) for spec in specs),
        ssh_options=(("LocalForward", "1234 localhost:1"), ("Compression", "yes")),
    )  # fmt: skip
    config = write(tmp_path, Fleet(boxes=(box,)), control_dir=Path("/run/x"))
    bare, tunnel = ask(config, "gpu"), ask(config, "gpu" + TUNNEL_SUFFIX)
    assert not any(key.endswith("forward") for key in bare)
    assert tunnel["localforward"] == [
        "8888 [localhost]:8888", "[127.0.0.1]:9000 [::1]:9000",
        "7000 /run/a b%.sock", "1234 [localhost]:1",
    ]  # fmt: skip
    assert tunnel["remoteforward"] == ["52698 [localhost]:52698", "52699 [localhost]:52699"]
    assert "8157" in tunnel["dynamicforward"]
    # A shared connection would keep the forwards, or refuse them; also one of the user's own.
    with config.open("a") as file:
        file.write("Host *\n  ControlMaster auto\n  ControlPath /run/own-%C\n")
    tunnel = ask(config, "gpu" + TUNNEL_SUFFIX)
    assert tunnel["controlmaster"] == ["false"]
    assert "controlpath" not in tunnel
    for both in ("hostname", "user", "compression"):
        assert bare[both] == tunnel[both]


def test_the_users_own_options_come_first_and_lists_stay_lists(tmp_path: Path) -> None:
    box = Box(
        "gpu", "192.0.2.1",
        ssh_options=(
            ("ServerAliveInterval", "99"), ("SendEnv", "A_*"), ("SendEnv", "B_*"),
            ("ControlMaster", "no"), ("ProxyCommand", "nc -X 5 'a b' %h %p # no comment"),
        ),
    )  # fmt: skip
    said = ask(write(tmp_path, Fleet(boxes=(box,)), control_dir=Path("/run/x")), "gpu")
    assert said["serveraliveinterval"] == ["99"]
    assert said["sendenv"] == ["A_*", "B_*"]
    assert said["controlmaster"] == ["false"]
    assert said["proxycommand"] == ["nc -X 5 'a b' %h %p # no comment"]


def test_hundreds_of_boxes_and_a_long_chain(tmp_path: Path) -> None:
    boxes = [Box(f"box{n}", f"10.0.{n // 250}.{n % 250}", user=f"u{n}") for n in range(400)]
    chain = [Box(f"hop{n}", f"h{n}", via=f"hop{n - 1}" if n else "") for n in range(20)]
    config = write(tmp_path, Fleet(boxes=(*boxes, *chain)))
    assert ask(config, "box399")["user"] == ["u399"]
    assert [ask(config, f"hop{n}")["proxyjump"] for n in (0, 1, 19)] == [[], ["hop0"], ["hop18"]]


def test_gateways_in_a_circle_are_refused() -> None:
    ring = Fleet(boxes=(Box("a", "h", via="b"), Box("b", "h", via="c"), Box("c", "h", via="a")))
    with pytest.raises(InventoryError, match=r"circle: a -> b -> c -> a|circle: a -> b"):
        render(ring, Settings(Path("/known_hosts")))


@pytest.mark.parametrize(
    "box",
    [
        Box("*", "h"), Box("a b", "h"), Box("-x", "h"), Box("a,b", "h"), Box("!a", "h"),
        Box("me@h", "h"), Box("none", "h"), Box("a#b", "h"), Box("", "h"),
        Box("a", ""), Box("a", "-oProxyCommand=x"), Box("a", "h;id"), Box("a", "$(id)"),
        Box("a", "h i"), Box("a", "h", user="%r"), Box("a", "h", identity="/k\nHost *"),
        Box("a", "h", identity="/${HOME}/k"), Box("a", "h", user="u\nHost *"),
        Box("a", "h", ssh_options=(("Host", "*"),)),
        Box("a", "h", ssh_options=(("Match", "all"),)),
        Box("a", "h", ssh_options=(("Include", "/x"),)),
        Box("a", "h", ssh_options=(("Port 1\nHost", "*"),)),
        Box("a", "h", ssh_options=(("SetEnv", "A=1\nHost *"),)),
        Box("a", "h", ssh_options=(("SetEnv", " "),)),
        Box("a", "h", via="nowhere"),
    ],
    ids=lambda box: repr((box.name, box.host, box.user, box.identity, box.ssh_options, box.via)),
)  # fmt: skip
def test_what_an_ssh_config_cannot_say_is_refused(box: Box) -> None:
    with pytest.raises(InventoryError):
        render(Fleet(boxes=(box,)), Settings(Path("/known_hosts")))


def test_two_boxes_never_share_a_name() -> None:
    forwards = (Forward.parse("1:localhost:1"),)
    for pair in (
        (Box("gpu", "h"), Box("GPU", "i")),
        (Box("gpu", "h", forwards=forwards), Box("gpu-tunnel", "i")),
    ):
        with pytest.raises(InventoryError, match="would both be called"):
            render(Fleet(boxes=pair), Settings(Path("/known_hosts")))


def test_ansible_reaches_a_box_by_its_address_too(tmp_path: Path) -> None:
    fleet = Fleet(
        boxes=(
            Box("gpu", "192.0.2.1", identity="/k1"),
            Box("gate", "192.0.2.2"),
            # One address, two ports: what differs is what Ansible says itself.
            Box("left", "127.0.0.1", 2201, identity="/shared"),
            Box("right", "127.0.0.1", 2202, identity="/shared"),
            # One address in two networks: only the names tell them apart.
            Box("db1", "10.0.0.5", via="gate"),
            Box("db2", "10.0.0.5", via="gpu"),
        )
    )
    config = write(tmp_path, fleet, addresses=True)
    assert ask(config, "192.0.2.1")["identityfile"] == ["/k1"]
    assert ask(config, "127.0.0.1")["identityfile"] == ["/shared"]
    assert ask(config, "127.0.0.1")["port"] == ["22"]
    assert "proxyjump" not in ask(config, "10.0.0.5")
    chosen = Settings(tmp_path / "known_hosts", addresses=True)
    assert [[b.name for b in group] for group in ambiguous_addresses(fleet, chosen)] == [
        ["db1", "db2"]
    ]
    by_name_alone = write(tmp_path, fleet)
    assert ask(by_name_alone, "192.0.2.1")["identityfile"] != ["/k1"]


def test_a_private_address_is_known_by_the_boxs_name(tmp_path: Path) -> None:
    gate = Box("gate", "192.0.2.2", 2222)
    private, named = Box("DB", "10.0.0.5", via="gate"), Box("web", "web.corp", via="gate")
    config = write(tmp_path, Fleet(boxes=(gate, private, named)))
    assert ask(config, "DB")["hostkeyalias"] == ["db"]
    assert "hostkeyalias" not in ask(config, "web")
    assert [host_key_name(b) for b in (gate, private, named)] == [
        "[192.0.2.2]:2222", "db", "web.corp",
    ]  # fmt: skip


def test_what_is_left_open_the_users_own_config_fills(tmp_path: Path) -> None:
    config = write(tmp_path, Fleet(boxes=(Box("gpu", "192.0.2.1", user="me"),)), user_config=True)
    own = tmp_path / "own"
    own.write_text(
        "Host *\n  User you\n  IdentityAgent /run/agent\n  RemoteCommand tmux\n  RequestTTY force\n"
    )
    config.write_text(config.read_text().replace("~/.ssh/config", str(own)))
    said = ask(config, "gpu")
    assert said["user"] == ["me"]
    assert said["identityagent"] == ["/run/agent"]
    assert said["remotecommand"] in ([], ["none"])
    assert said["requesttty"] == ["auto"]


@given(home=st.from_regex(r"/[a-z]{1,60}(/[a-z]{1,60}){0,3}", fullmatch=True))
def test_a_control_path_fits_into_a_socket_address(home: str) -> None:
    paths = Paths.from_environment({"HOME": home, "XDG_RUNTIME_DIR": "/run/user/1000"})
    folder = control_dir(paths)
    assert folder is not None
    # %C is 40 digits; ssh adds a dot and 16 characters, and the address ends with a NUL.
    assert len(str(folder)) + 1 + 40 + 17 + 1 <= 104
    long = Paths.from_environment({"HOME": home * 9, "XDG_RUNTIME_DIR": "/run" * 20})
    assert control_dir(long) is None or len(str(control_dir(long))) <= CONTROL_DIR_MAX
