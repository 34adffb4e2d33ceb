"""Go programs, whose runtime sleeps on futexes: whole stacks, named down to the line."""
import json
import shutil
import subprocess

import pytest

from conftest import Attached, run

GO = shutil.which("go")

PROGRAM = """
package main

import (
	"fmt"
	"runtime"
	"sync"
	"time"
)

type Cache struct {
	mu sync.Mutex
	n  int
}

func (c *Cache) Get() {
	c.mu.Lock()
	for i := 0; i < 20000; i++ {
		c.n += i
	}
	c.mu.Unlock() // here
}

//go:noinline
func worker(c *Cache, work chan int) {
	for range work {
		c.Get()
	}
}

//go:noinline
func producer(work chan int) {
	for i := 0; ; i++ {
		work <- i
		if i%64 == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

func main() {
	runtime.GOMAXPROCS(4)
	cache, work := &Cache{}, make(chan int, 8)
	for i := 0; i < 6; i++ {
		go worker(cache, work)
	}
	go producer(work)
	go producer(work)
	fmt.Println("ready")
	time.Sleep(time.Hour)
}
"""

CGO_PROGRAM = """
package main

/*
#cgo LDFLAGS: -lpthread
#include <pthread.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile long sink;
static void __attribute__((noinline)) c_work(int n) {
  pthread_mutex_lock(&mutex);
  for (int i = 0; i < n; i++) sink += i;
  pthread_mutex_unlock(&mutex);
  sink++;
}
extern void goCallback(int);
static void __attribute__((noinline)) c_call_go(int n) { goCallback(n); sink++; }
*/
import "C"

import (
	"fmt"
	"runtime"
	"time"
)

//export goCallback
func goCallback(n C.int) { C.c_work(n) }

//go:noinline
func caller() {
	for {
		C.c_call_go(200000)
	}
}

func main() {
	runtime.GOMAXPROCS(4)
	for i := 0; i < 4; i++ {
		go caller()
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
}
"""


def report_of(tmp_path, source, *flags):
    """The report on the program, traced for 2 s."""
    (tmp_path / "main.go").write_text(source)
    built = subprocess.run(
        [GO, "build", *flags, "-o", tmp_path / "program", "main.go"], cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GO111MODULE": "off"},
        capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    program = subprocess.Popen([tmp_path / "program"], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "ready\n"
        capture = tmp_path / "capture"
        Attached("record", "-p", program.pid, "-d", "2", "-o", capture).finish()
    finally:
        program.kill()
        program.wait()
    done = run("report", capture, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stacks_of(report):
    """But for those that slept at the very end and have none."""
    return [row["frames"] for table in ("wait_sites", "holders") for row in report[table]
            if row["frames"]]


def check_complete(report):
    quality = report["capture"]["quality"]
    stacks = quality["stacks"]
    assert stacks["all"]["distinct"] >= 8, quality
    for measure in ("waits", "wait_ns", "releases"):
        assert stacks["whole"][measure] >= 0.99 * stacks["all"][measure], quality
    # A program's first stacks may be taken before its code is known; the last waits have none.
    assert set(stacks["incomplete"]) <= {"code not known yet", "not taken"}, quality
    assert not any("not read" in reason for reason in quality["lost"]), quality
    ends = {row["frames"][-1]["function"] for table in ("wait_sites", "holders")
            for row in report[table] if row["complete"]}
    assert ends <= {"runtime.goexit", "runtime.mstart", "runtime.mcall", "runtime.morestack",
                    "runtime.rt0_go", "__clone3", "clone3", "__clone", "_start"}, ends


@pytest.mark.skipif(not GO, reason="no go here")
@pytest.mark.parametrize("flags", [[], ["-ldflags=-s -w"]], ids=["plain", "stripped"])
def test_stacks_are_whole(tmp_path, flags):
    report = report_of(tmp_path, PROGRAM, *flags)
    check_complete(report)
    # The way of one Unlock that woke another thread, with inlined functions and lines.
    unlocks = [frames for frames in stacks_of(report)
               if "sync.(*Mutex).Unlock" in [f["function"] for f in frames]]
    assert unlocks
    for frames in unlocks:
        functions = [f["function"] for f in frames]
        assert functions[0] == "runtime.futex"
        at = functions.index("sync.(*Mutex).Unlock")
        assert frames[at]["inlined"] and frames[at]["file"].endswith("/sync/mutex.go")
        assert functions[at + 1:at + 3] == ["main.(*Cache).Get", "main.worker"]
        line = PROGRAM.splitlines().index("	c.mu.Unlock() // here") + 1
        assert frames[at + 1]["line"] == line
        assert frames[at + 1]["file"].endswith("/main.go")


@pytest.mark.skipif(not GO or not shutil.which("gcc"), reason="no go or no gcc here")
def test_through_c_and_back(tmp_path):
    report = report_of(tmp_path, CGO_PROGRAM)
    check_complete(report)
    waits = [[f["function"] for f in frames] for frames in stacks_of(report)]
    waits = [functions for functions in waits if "c_work" in functions]
    assert waits
    for functions in waits:
        order = ["c_work", "main.goCallback", "runtime.cgocallback", "c_call_go",
                 "runtime.asmcgocall", "main.caller", "runtime.goexit"]
        at = [len(functions) - 1 - functions[::-1].index(name) for name in order]
        assert at == sorted(at), functions
