"""A private network behind a gateway, and a real Chromium that opens its pages."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chromium import CHROMIUM
from cli import roost
from tunnel_rig import free_port, ours, tunnels, wait_for

from boxes import LiveBox, exec_in, private_network, start_boxes
from roost import process
from roost.errors import ExitCode
from roost.tunnels import Tunnels

__all__ = ["tunnels"]
pytestmark = [pytest.mark.box, pytest.mark.browser]

# haproxy is the internal load balancer, nginx what stands behind it.
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend private
    bind :80
    default_backend wiki
backend wiki
    server one 127.0.0.1:8080
"""
NGINX = """
server {
    listen 127.0.0.1:8080 default_server;
    location / { default_type text/html; return 200 "<p>the team's wiki, asked as $host</p>"; }
}
"""
# The private box has no way out: the gateway fetches the packages for it.
FETCH = """
set -eu
mkdir -p /root/debs/partial
apt-get -qq update
apt-get -qq install --download-only --no-install-recommends -o Dir::Cache::archives=/root/debs \\
    nginx-light haproxy
"""
INSTALL = """
set -eu
export DEBIAN_FRONTEND=noninteractive
systemctl mask haproxy
dpkg --force-confold -i /root/debs/*.deb >/dev/null
rm -f /etc/nginx/sites-enabled/default
systemctl restart nginx
# Not by its own unit, whose file system namespace cannot be had in a container.
systemd-run --quiet --unit=balancer /usr/sbin/haproxy -db -f /etc/haproxy/haproxy.cfg
"""


@dataclass(frozen=True)
class Site:
    """A gateway, and behind it 10.99.0.2, which only the gateway calls wiki.corp.example."""

    gate: LiveBox
    inner: LiveBox


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with start_boxes("gate") as boxes:
        gate = boxes["gate"]
        inner = private_network(gate)
        exec_in(gate, ["sh", "-c", FETCH], timeout=300)
        engine = gate.sandbox.engine
        (folder / "wiki.conf").write_text(NGINX)
        (folder / "haproxy.cfg").write_text(HAPROXY)
        exec_in(inner, ["mkdir", "-p", "/etc/nginx/conf.d", "/etc/haproxy"])
        engine("cp", f"{gate.now.container}:/root/debs", str(folder))
        engine("cp", str(folder / "debs"), f"{inner.now.container}:/root/")
        engine("cp", str(folder / "wiki.conf"), f"{inner.now.container}:/etc/nginx/conf.d/")
        engine("cp", str(folder / "haproxy.cfg"), f"{inner.now.container}:/etc/haproxy/")
        exec_in(inner, ["sh", "-c", INSTALL], timeout=300)
        exec_in(gate, ["sh", "-c", "echo 10.99.0.2 wiki.corp.example >>/etc/hosts"])
        yield Site(gate, inner)


@pytest.fixture
def public_page() -> Iterator[int]:
    """The port of a web server on this side, which stands for the rest of the world."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p>the whole world</p>")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def settings(site: Site, *words: str) -> dict[str, object]:
    done = roost(site.gate, "proxy", "gate", "--json", *words)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def browse(tmp_path: Path, pac: object, address: str, public_page: int) -> str:
    """The page that Chromium shows for ``address``."""
    world = f"MAP world.example 127.0.0.1:{public_page}"
    argv = [*CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", f"--proxy-pac-url={pac}"]
    return process.run(
        [*argv, f"--host-resolver-rules={world}", "--dump-dom", address], timeout=120, check=False
    ).stdout


def test_private_names_take_the_gateway_and_others_do_not(
    site: Site, tunnels: Tunnels, tmp_path: Path, public_page: int
) -> None:
    found = settings(site, "--domain", "corp.example", "--domain", "10.99.0.0/24")

    wiki = browse(tmp_path, found["pac"], "http://wiki.corp.example/", public_page)
    by_address = browse(tmp_path, found["pac"], "http://10.99.0.2/", public_page)
    world = browse(tmp_path, found["pac"], "http://world.example/", public_page)

    assert "asked as wiki.corp.example" in wiki
    assert "asked as 10.99.0.2" in by_address
    # The gateway does not know this name: had it been asked, there would be no page.
    assert "the whole world" in world


def test_a_public_name_in_the_list_is_not_asked_for_here(
    site: Site, tunnels: Tunnels, tmp_path: Path, public_page: int
) -> None:
    """The counter-test: what is listed fails when the far side does not know it."""
    found = settings(site, "--domain", "world.example")

    assert "the whole world" not in browse(
        tmp_path, found["pac"], "http://world.example/", public_page
    )


def test_curl_takes_the_printed_settings(site: Site, tunnels: Tunnels) -> None:
    found = settings(site, "--domain", "corp.example")

    page = process.run(["curl", "-sS", "--proxy", str(found["socks"]), "wiki.corp.example"])

    assert "the team's wiki" in page.stdout


def test_without_names_the_boxes_behind_the_gateway_are_private(
    site: Site, tunnels: Tunnels
) -> None:
    assert settings(site)["networks"] == ["10.99.0.2/32"]


def test_other_names_change_the_script_alone(site: Site, tunnels: Tunnels) -> None:
    first = settings(site, "--domain", "corp.example")
    before = ours(tunnels)
    second = settings(site, "--domain", "team.example")

    script = process.run(["curl", "-sS", "--noproxy", "*", str(second["pac"])]).stdout

    assert (first["pac"], first["socks"]) == (second["pac"], second["socks"])
    assert "team.example" in script
    assert "corp.example" not in script
    assert ours(tunnels) == before


def test_opens_a_browser_with_a_profile_of_its_own(
    site: Site, tunnels: Tunnels, tmp_path: Path
) -> None:
    shown = tmp_path / "page.html"
    wrapper = tmp_path / "chromium"
    words = " ".join(CHROMIUM)
    wrapper.write_text(
        f'#!/bin/sh\n{words} --dump-dom "$@" http://wiki.corp.example/ >{shown}.new\n'
        f"mv {shown}.new {shown}\n"
    )
    wrapper.chmod(0o700)

    done = roost(site.gate, "proxy", "gate", "--domain", "corp.example", "--browser", str(wrapper))

    assert done.returncode == 0, done.stderr
    wait_for(shown.exists)
    assert "the team's wiki" in shown.read_text()
    assert Path(os.environ["HOME"]).joinpath(".local/state/roost/browsers").is_dir()


def test_firefox_takes_the_gateway_for_private_names_alone(
    site: Site, tunnels: Tunnels, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = world.getsockname()[1]
        wrapper, number = tmp_path / "firefox", tmp_path / "pid"
        # Every name that is looked up on this side leads to loopback, the browser's own, too.
        wrapper.write_text(
            f"""#!/bin/sh
echo 'user_pref("network.dns.forceResolve", "127.0.0.1");' >>"$3/user.js"
echo $$ >{number}
exec /usr/bin/firefox --headless "$@" http://wiki.corp.example/firefox http://world.example:{port}/
"""
        )
        wrapper.chmod(0o700)
        words = ("--domain", "corp.example", "--browser", str(wrapper))

        done = roost(site.gate, "proxy", "gate", *words)

        assert done.returncode == 0, done.stderr
        stack.callback(lambda: os.killpg(int(number.read_text()), signal.SIGKILL))
        log = ["grep", "-c", "GET /firefox", "/var/log/nginx/access.log"]
        wait_for(lambda: exec_in(site.inner, log, check=False).returncode == 0, 60)
        world.settimeout(60)
        asked = stack.enter_context(world.accept()[0]).recv(4096)
        assert f"Host: world.example:{port}".encode() in asked


def test_a_browser_that_is_not_there(site: Site, tunnels: Tunnels) -> None:
    done = roost(site.gate, "proxy", "gate", "--domain", "a.example", "--browser", "no-such")
    assert done.returncode == ExitCode.FAILED
    assert "no-such is not installed" in done.stderr


@pytest.mark.parametrize("wrong", ["not a name", "10.0.0.0/33", "2001:db8::/32", ""])
def test_refuses_what_is_no_domain(site: Site, tunnels: Tunnels, wrong: str) -> None:
    done = roost(site.gate, "proxy", "gate", "--domain", wrong)
    assert done.returncode == ExitCode.USAGE, done.stderr


def test_the_port_may_be_chosen_and_its_holder_is_named(site: Site, tunnels: Tunnels) -> None:
    port = free_port()
    words = ("--domain", "a.example", "--port", str(port))
    with socket.create_server(("127.0.0.1", port)):
        taken = roost(site.gate, "proxy", "gate", *words)
    assert taken.returncode == ExitCode.USAGE, taken.stderr
    assert f"process {os.getpid()}" in taken.stderr
    assert "roost proxy gate --port " in taken.stderr

    assert settings(site, *words)["socks"] == f"socks5h://127.0.0.1:{port}"
