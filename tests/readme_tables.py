"""Writes the README's tables of commands and options and the manual's options, from the server's own word, and the README's
figures, from the file of results.

python3 tests/readme_tables.py [--check]: with --check nothing is written, and the exit status is 1 where one of them is out of date.
The tables stand between lines <!-- commands --> and <!-- end -->, <!-- options --> and <!-- end -->; in the manual a line
begins with .\\" instead; for the figures see bench/figures.py.
"""
import os
import re
import subprocess
import sys

TESTS = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [TESTS, os.path.join(TESTS, "bench")]
import figures  # noqa: E402
from ev import ECHOVAULT, ROOT, Server  # noqa: E402

README = os.path.join(ROOT, "README.md")
MANUAL = os.path.join(ROOT, "dist", "echovault.1")
GROUPS = ["string", "bitmap", "generic", "transactions", "connection", "server", "pubsub"]


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


def commands():
    with Server(appendonly="no", save="") as server, server.client() as c:
        docs = {name.decode(): pairs(doc) for name, doc in pairs(c("COMMAND", "DOCS")).items()}
    rows = ["| command | what it does |", "| --- | --- |"]
    group = lambda name: docs[name][b"group"].decode()  # noqa: E731
    for name in sorted(docs, key=lambda name: (GROUPS.index(group(name)), name)):
        subs = [sub.decode().split("|")[1].upper() for sub in docs[name].get(b"subcommands", [])[::2]]
        rows.append(f"| {' '.join([name.upper()] + ([', '.join(subs)] if subs else []))} | {docs[name][b'summary'].decode()} |")
    return "\n".join(rows)


def options():
    """(name, what it does, default) of each."""
    text = subprocess.run([ECHOVAULT, "--help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  --(\S+) +(\S.*?)(?: \[(.*)\])?$", text, re.M)


def options_table():
    rows = ["| option | what it does | default |", "| --- | --- | --- |"]
    return "\n".join(rows + [f"| `{name}` | {what} | {default and f'`{default}`'} |" for name, what, default in options()])


def options_list():
    """In mdoc, where - stands for a hyphen and \\- for what is typed."""
    item = lambda name, what, default: f".It Fl \\-{name} Ar value\n{what}{default and f' [{default}]'}"  # noqa: E731
    return "\n".join(item(name.replace("-", "\\-"), what, default) for name, what, default in options())


def renewed(text):
    """The README's text as it should be."""
    for name, make in ("commands", commands), ("options", options_table):
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{make()}\n\n{m[2]}", text, flags=re.S)
    return figures.renewed(text)


def renewed_manual(text):
    return re.sub(r'(\.\\" options\n).*?(\.\\" end)', lambda m: f"{m[1]}{options_list()}\n{m[2]}", text, flags=re.S)


def read(path):
    with open(path) as f:
        return f.read()


if __name__ == "__main__":
    stale = {path: new for path, make in ((README, renewed), (MANUAL, renewed_manual))
             if (new := make(old := read(path))) != old}
    if "--check" in sys.argv:
        sys.exit(bool(stale))
    for path, text in stale.items():
        with open(path, "w") as f:
            f.write(text)
