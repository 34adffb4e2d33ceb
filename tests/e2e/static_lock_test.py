"""Static locks are known by their variables' names."""
import json
import subprocess

import jsonschema

from conftest import ROOT, run

PROGRAM = """
#include <pthread.h>
#include <unistd.h>

#include <initializer_list>

namespace app {
struct Registry {
  long entries;
  pthread_mutex_t lock;
};
pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
Registry g_registry = {0, PTHREAD_MUTEX_INITIALIZER};
}

static void* work(void*) {
  for (int i = 0; i < 200; i++) {
    for (pthread_mutex_t* mutex : {&app::g_lock, &app::g_registry.lock}) {
      pthread_mutex_lock(mutex);
      usleep(500);
      pthread_mutex_unlock(mutex);
    }
  }
  return nullptr;
}

int main() {
  pthread_t threads[4];
  for (pthread_t& thread : threads) pthread_create(&thread, nullptr, work, nullptr);
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
}
"""


def test_sites_are_named_by_variable(tmp_path):
    (tmp_path / "main.cc").write_text(PROGRAM)
    subprocess.run(["g++", "-O1", "-pthread", "main.cc", "-o", "program"], cwd=tmp_path, check=True)
    capture = tmp_path / "capture"
    done = run("record", "-o", capture, "--", tmp_path / "program")
    assert done.returncode == 0, done.stderr

    diagnosis = json.loads(run("diagnose", capture, "--format", "json").stdout)
    jsonschema.validate(diagnosis,
                        json.loads((ROOT / "docs" / "diagnosis.schema.json").read_text()))
    found = {f["site"]["name"] for f in diagnosis["findings"] if f["site"]["kind"] == "mutex"}
    assert found == {"app::g_lock", "app::g_registry+0x8"}

    report = json.loads(run("report", capture, "--format", "json").stdout)
    jsonschema.validate(report, json.loads((ROOT / "docs" / "report.schema.json").read_text()))
    assert found <= {lock["name"] for lock in report["locks"]}
    text = run("diagnose", capture).stdout
    assert "app::g_lock" in text and "app::g_registry+0x8" in text
