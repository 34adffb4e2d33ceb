"""Fetches one page over and over through a Unix socket: http_load.py SOCKET PATH CONNECTIONS SECONDS"""
import http.client
import socket
import sys
import threading
import time


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def fetch(page, end, done):
    connection = Connection(sys.argv[1])
    while time.monotonic() < end:
        connection.request("GET", page)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            sys.exit(f"status {answer.status}")
        done.append(1)


def main():
    page, connections, seconds = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    end, done = time.monotonic() + seconds, []
    threads = [threading.Thread(target=fetch, args=(page, end, done)) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"OPS_PER_SECOND={len(done) / seconds:.0f}")
    sys.exit(not done)


main()
