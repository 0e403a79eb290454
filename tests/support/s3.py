"""A real S3 server on loopback for tests: OpenStack Swift with its S3 API, in a virtual environment of its own.

Installed once into `.scratch/swift` of the project (about 80 MB), with a free port for every start. Signatures are checked. Linux only: Swift
keeps metadata in extended attributes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ACCESS, SECRET = "diger:access", "canary-secret-7f3a"
PACKAGES = ("swift==2.38.3", "python-memcached==1.62", "setuptools<81")
SERVERS = ("object", "container", "account", "proxy")

_STORAGE = """[DEFAULT]
devices = {home}/node
swift_dir = {home}
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
log_name = {name}
recon_cache_path = {home}/recon
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

_PROXY = """[DEFAULT]
swift_dir = {home}
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
log_name = proxy
[pipeline:main]
pipeline = catch_errors healthcheck cache s3api tempauth bulk slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
allow_multipart_uploads = yes
dns_compliant_bucket_names = no
[filter:tempauth]
use = egg:swift#tempauth
user_{user_key} = {secret} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


def _install() -> Path:
    venv = PROJECT / ".scratch" / "swift" / "venv"
    venv.parent.mkdir(parents=True, exist_ok=True)
    with (venv.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests at once: the second waits for the first one's installation
        if not (venv / ".ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
            pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
            subprocess.run([*pip, *PACKAGES], check=True)
            (venv / ".ready").touch()
    return venv / "bin"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _configure(binaries: Path, home: Path, ports: list[int]) -> None:
    (home / "node" / "sdb1").mkdir(parents=True)
    (home / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = diger\nswift_hash_path_prefix = diger\n[storage-policy:0]\nname = default\ndefault = yes\n"
    )
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    for name, port in zip(SERVERS[:3], ports, strict=False):
        (home / f"{name}-server.conf").write_text(_STORAGE.format(home=home, port=port, user=user, name=name))
        builder = [str(binaries / "swift-ring-builder"), f"{name}.builder"]
        for arguments in (["create", "4", "1", "1"], ["add", f"r1z1-127.0.0.1:{port}/sdb1", "1"], ["rebalance"]):
            done = subprocess.run([*builder, *arguments], cwd=home, capture_output=True, check=False)
            if done.returncode not in (0, 1):  # 1: a warning about balance
                raise RuntimeError(done.stderr.decode())
    key = ACCESS.replace(":", "_")
    (home / "proxy-server.conf").write_text(_PROXY.format(home=home, port=ports[3], cache=ports[4], user=user, user_key=key, secret=SECRET))


@contextlib.contextmanager
def s3_server(home: Path) -> Iterator[dict[str, str]]:
    """Starts the server below `home`; yields the environment that reaches it. No bucket exists at first."""
    binaries, ports = _install(), _free_ports(5)
    _configure(binaries, home, ports)
    running = [
        subprocess.Popen(
            [str(binaries / f"swift-{name}-server"), str(home / f"{name}-server.conf")],
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for name in SERVERS
    ]
    try:
        _wait(f"http://127.0.0.1:{ports[3]}/healthcheck")
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[3]}",
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str) -> None:
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer within 60 s")


def make_bucket(environment: dict[str, str], name: str) -> str:
    """Creates a bucket and returns its URL; the environment must be exported already."""
    import s3fs

    assert os.environ["AWS_ENDPOINT_URL"] == environment["AWS_ENDPOINT_URL"]
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"
