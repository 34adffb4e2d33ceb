"""Debug files from a debuginfod server (a stand-in on the loopback): names for stripped programs."""
import http.server
import json
import os
import re
import subprocess
import threading

import pytest

from conftest import LOCKSCOPE, workload


class Server(http.server.ThreadingHTTPServer):
    """Serves /buildid/ID/debuginfo for one file; what was asked for is in `paths`."""

    daemon_threads = True

    def __init__(self, build_id, file):
        self.wanted, self.file, self.paths = f"/buildid/{build_id}/debuginfo", file, []
        self.hangs, self.end = False, threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def close(self):
        self.end.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        if self.server.hangs:
            self.server.end.wait()
            return
        if self.path != self.server.wanted:
            self.send_error(404)
            return
        content = self.server.file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def program(tmp_path):
    """A contended program without its symbols."""
    path = tmp_path / "stripped"
    subprocess.run(["strip", "-s", "-o", path, workload("timed_mutex")[0]], check=True)
    return path


@pytest.fixture
def server(program):
    whole = workload("timed_mutex")[0]
    notes = subprocess.run(["readelf", "-n", whole], capture_output=True, text=True).stdout
    server = Server(re.search("Build ID: ([0-9a-f]+)", notes)[1], type(program)(whole))
    yield server
    server.close()


def diagnose(program, tmp_path, **variables):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path),
                   "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache"), **variables}
    command = [program, *workload("timed_mutex", seconds=1, think_us=50)[1:]]
    output = tmp_path / "diagnosis.json"
    done = subprocess.run(
        [LOCKSCOPE, "diagnose", "--format", "json", "-o", output, "--", *command], text=True,
        capture_output=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    assert not any("not read" in reason for reason in document["capture"]["quality"]["lost"])
    frames = [frame for finding in document["findings"]
              for stack in finding["waiter_stacks"] for frame in stack["frames"]
              if frame["module"] == "stripped"]
    assert frames
    return done.stderr, frames


def named(frames):
    return [frame for frame in frames if not frame["function"].startswith("stripped")]


def test_not_asked_when_not_configured(program, server, tmp_path):
    _, frames = diagnose(program, tmp_path)
    assert not named(frames)
    assert not server.paths


def test_names_and_lines(program, server, tmp_path):
    said, frames = diagnose(program, tmp_path, DEBUGINFOD_URLS=server.url())
    assert len(named(frames)) == len(frames)
    assert any(frame["file"].endswith("timed_mutex.cc") and frame["line"] > 0 for frame in frames)
    assert said.count("debuginfod") == 1, said
    # From the cache the second time.
    asked = server.paths.count(server.wanted)
    assert asked == 1
    _, frames = diagnose(program, tmp_path, DEBUGINFOD_URLS=server.url())
    assert len(named(frames)) == len(frames)
    assert server.paths.count(server.wanted) == asked


def test_unreachable_server_is_one_warning(program, tmp_path):
    said, frames = diagnose(program, tmp_path, DEBUGINFOD_URLS="http://127.0.0.1:1")
    assert not named(frames)
    assert len([line for line in said.splitlines() if "going on without" in line]) == 1, said


def test_silent_server_is_given_up(program, server, tmp_path):
    server.hangs = True
    said, frames = diagnose(program, tmp_path, DEBUGINFOD_URLS=server.url(),
                            DEBUGINFOD_TIMEOUT="1", DEBUGINFOD_RETRY_LIMIT="0")
    assert not named(frames)
    assert len([line for line in said.splitlines() if "going on without" in line]) == 1, said
