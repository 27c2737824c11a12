"""An object store on this machine as a fixture: see `s3_server`."""

import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from support.needs import require
from support.s3_server import BUCKETS
from tuner.stores import buckets, contact

SCRIPT = Path(__file__).with_name("s3_server.py")
SECRET = "a-secret-that-nobody-may-read"


class ObjectStore:
    """A server with the buckets of `s3_server`."""

    def __init__(self):
        self.away = Path(tempfile.mkdtemp(prefix="tuner-s3-"), "away")  # a file that makes it answer nothing
        command = [sys.executable, str(SCRIPT), str(self.away)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        for name in BUCKETS:
            self.request("PUT", name)

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def request(self, method, path):
        """What the server answers, past the client that is tested."""
        asked = urllib.request.Request(f"{self.url}/{path}", method=method)
        with urllib.request.urlopen(asked, timeout=60) as answered:
            return answered.read()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.away.parent)


@pytest.fixture(scope="session")
def object_server():
    started = ObjectStore()
    yield started
    started.close()


@pytest.fixture
def object_store(request, monkeypatch):
    """The server, which the environment names; quick to be given up before anything is trained."""
    require("obstore", "moto")
    server = request.getfixturevalue("object_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(buckets, "_opened", {})
    monkeypatch.setattr(contact, "_met", set())
    monkeypatch.setattr(contact, "PROBE_SECONDS", 0.5)
    return server
