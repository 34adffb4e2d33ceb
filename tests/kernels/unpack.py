#!/usr/bin/env python3
"""Takes apart what a guest wrote to its second serial port (see init.sh).

usage: unpack.py SERIAL_LOG DIR: writes DIR/output (what the test printed),
DIR/results/* (the guest's files); the exit code is the test's, 125 if the guest
never got to the end.
"""
import base64
import gzip
import pathlib
import sys


def main(serial_log, directory):
    directory = pathlib.Path(directory)
    results = directory / "results"
    results.mkdir(parents=True, exist_ok=True)
    for old in results.iterdir():
        old.unlink()
    code, name, encoded, output = 125, None, [], []
    for line in pathlib.Path(serial_log).read_text(errors="replace").splitlines():
        word, _, rest = line.partition(" ")
        kind, _, value = rest.partition(" ")
        if word != "@@guest":
            (output if name is None else encoded).append(line)
        elif kind == "FILE":
            name, encoded = value, []
        elif kind == "END" and name is not None:
            # Only a plain name: the guest's text never chooses a folder on the host.
            data = gzip.decompress(base64.b64decode("".join(encoded)))
            (results / pathlib.PurePosixPath(name).name).write_bytes(data)
            name = None
        elif kind == "EXIT":
            code = int(value)
    (directory / "output").write_text("\n".join(output).rstrip("\n") + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
