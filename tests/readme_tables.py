"""Writes the README's tables of commands and options, from the server's own word.

python3 tests/readme_tables.py [--check]: with --check nothing is written, and the exit status is 1 where the README is out of date.
The tables stand between lines <!-- commands --> and <!-- end -->, <!-- options --> and <!-- end -->.
"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ev import ECHOVAULT, ROOT, Server  # noqa: E402

README = os.path.join(ROOT, "README.md")
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
    text = subprocess.run([ECHOVAULT, "--help"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^  --(\S+) +(\S.*?)(?: \[(.*)\])?$", text, re.M)
    rows = ["| option | what it does | default |", "| --- | --- | --- |"]
    return "\n".join(rows + [f"| `{name}` | {what} | {default and f'`{default}`'} |" for name, what, default in found])


def renewed(text):
    for name, make in ("commands", commands), ("options", options):
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{make()}\n\n{m[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    with open(README) as f:
        old = f.read()
    new = renewed(old)
    if "--check" in sys.argv:
        sys.exit(new != old)
    with open(README, "w") as f:
        f.write(new)
