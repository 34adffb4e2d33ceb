"""Threads that want the interpreter and one lock, for SECONDS: gil.py SECONDS"""
import json
import sys
import threading
import time

lock = threading.Lock()
end = time.monotonic() + float(sys.argv[1])


def nested(depth):
    if depth:
        return nested(depth - 1)
    with lock:
        return json.loads(json.dumps({"numbers": list(range(200))}))


def work():
    while time.monotonic() < end:
        nested(8)


# First: with the threads at work it may be long before the main one has its turn.
print("at work", flush=True)
for _ in range(8):
    threading.Thread(target=work).start()
