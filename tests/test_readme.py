"""Runs the README's examples as written.

What is run: fenced blocks marked ```python, and those marked ```console, in which

    $ make run                     starts the server, as does ./echovault ... with any options (a trailing & is fine);
    $ redis-cli -p 6379            opens a session, whose lines follow behind a prompt:
    127.0.0.1:6379> SET k v
    OK                             what is expected to be shown, up to the next prompt;
    $ anything else                runs in sh; what it should print follows.

A line of dots alone (...) stands for any lines, dots within a line for any characters. Blocks run from top to
bottom in one temporary folder, with free ports in place of those from 6379 on, and the servers run until the end
or until the README stops them. A block marked ```sh is shown only.
"""
import functools
import os
import re
import shlex
import subprocess
import time
from unittest import mock

import pytest
import redis

import readme_tables
from ev import ECHOVAULT, ROOT, Client, free_port, need, ours

README = os.path.join(ROOT, "README.md")
PROMPT = re.compile(r"^(?:127\.0\.0\.1:\d+(?:\[\d+\])?(?:\(TX\))?> |\$ )(.*)$")


def blocks(text):
    """The blocks that are run, as (line number, language, lines)."""
    for block in re.finditer(r"^```(console|python)\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, block.start()) + 2, block[1], block[2].splitlines()


def steps(lines):
    """A block's prompts as [is it the shell's, what is typed, what is expected]."""
    found = []
    for line in lines:
        if prompt := PROMPT.match(line):
            found.append([line.startswith("$"), prompt[1], []])
        else:
            assert found, f"output before any prompt: {line}"
            found[-1][2].append(line)
    return found


def matches(expected, shown):
    """Do the lines match, with ... for anything?"""
    lines = "\n".join(line.rstrip() for line in expected).strip().split("\n")
    patterns = ["(?:.|\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") for line in lines]
    return re.fullmatch("\n".join(patterns), "\n".join(map(str.rstrip, shown.splitlines())).strip()) is not None


class Runner:
    """The machine of a reader who types along."""

    def __init__(self, folder):
        self.folder, self.servers, self.ports, self.session, self.multi = folder, [], {}, None, False
        os.symlink(ECHOVAULT, folder / "echovault")

    def substitute(self, text):
        """Free ports in place of 6379, 6380, ..."""
        return re.sub(r"\b(63[789]\d)\b", lambda m: str(self.ports.setdefault(m[1], free_port())), text)

    def run(self, is_shell, typed, expected):
        typed, expected = self.substitute(typed), [self.substitute(line) for line in expected]
        if not is_shell:
            shown = self.ask(typed)
        elif typed.startswith(("make run", "./echovault")) and "--version" not in typed and "--help" not in typed:
            return self.start(typed.replace("make run", "./echovault --port 6379", 1))
        elif re.fullmatch(r"redis-cli( -p \d+| -3)*", typed):
            return self.open(typed)
        else:
            done = subprocess.run(["sh", "-c", typed], cwd=self.folder, capture_output=True, text=True, timeout=60)
            shown = done.stdout + done.stderr
        assert matches(expected, shown), f"{typed}\nexpected:\n" + "\n".join(expected) + f"\nshown:\n{shown}"

    def run_python(self, code):
        """Python with redis-py, whose own default port is moved as well."""
        with mock.patch.object(redis, "Redis", functools.partial(redis.Redis, port=int(self.substitute("6379")))):
            exec(self.substitute(code), {})

    def start(self, typed):
        words = shlex.split(self.substitute(typed).rstrip("& "))
        port = words[words.index("--port") + 1] if "--port" in words else self.substitute("6379")
        if "--port" not in words:
            words += ["--port", port]
        log = open(self.folder / f"{port}.txt", "ab")
        server = subprocess.Popen(words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.servers.append(server)
        for _ in range(1000):
            assert server.poll() is None, f"{typed} ended"
            try:
                Client(int(port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.01)
        raise AssertionError(f"{typed} does not listen")

    def open(self, typed):
        """A redis-cli that answers as it does on a terminal."""
        self.close()
        self.session = subprocess.Popen(
            [*typed.split(), *([] if "-p" in typed else ["-p", self.substitute("6379")]), "--no-raw"],
            cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )

    def ask(self, typed):
        """One command's answer: all that comes before the answer to an ECHO that follows it."""
        assert self.session, f"no redis-cli is open for: {typed}"
        self.session.stdin.write(f"{typed}\n")
        self.session.stdin.flush()
        lines = []
        if not self.in_transaction(typed):
            self.session.stdin.write("ECHO end-of-answer\n")
            self.session.stdin.flush()
            while (line := self.session.stdout.readline()).strip() != '"end-of-answer"':
                assert line, f"redis-cli ended at: {typed}"
                if not re.fullmatch(r"\(\d+\.\d\ds\)\s*", line):  # redis-cli's word on what took half a second
                    lines.append(line)
        else:
            lines.append(self.session.stdout.readline())
        return "".join(lines)

    def in_transaction(self, typed):
        """An ECHO would be queued; there, an answer is one line."""
        word = typed.split()[0].upper()
        self.multi = word == "MULTI" or (self.multi and word not in ("EXEC", "DISCARD"))
        return self.multi

    def close(self):
        if self.session:
            self.session.stdin.close()
            self.session.wait(10)
            self.session.stdout.close()
            self.session = None

    def finish(self):
        self.close()
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.wait(20)


@pytest.fixture
def runner(tmp_path):
    need("redis-cli")
    runner = Runner(tmp_path)
    yield runner
    runner.finish()


def run_all(runner, text):
    for line, language, lines in blocks(text):
        try:
            if language == "python":
                runner.run_python("\n".join(lines))
            else:
                for step in steps(lines):
                    runner.run(*step)
        except Exception as failure:
            raise AssertionError(f"in the block at line {line}: {failure}") from failure


@ours
def test_the_readmes_examples_run_as_written(runner):
    with open(README) as f:
        text = f.read()
    assert len(list(blocks(text))) >= 3
    run_all(runner, text)


SAMPLE = """
```console
$ make run --appendonly no
$ redis-cli -p 6379
127.0.0.1:6379> SET k "a b"
OK
127.0.0.1:6379> MULTI
OK
127.0.0.1:6379(TX)> APPEND k c
QUEUED
127.0.0.1:6379(TX)> EXEC
1) (integer) 4
127.0.0.1:6379> CONFIG GET port
1) "port"
2) "6379"
$ redis-cli -p 6379 GET k | tr a-z A-Z
A BC
```

```python
import redis
assert redis.Redis().get("k") == b"a bc"
```
"""


def test_the_sample_runs(runner):
    run_all(runner, SAMPLE)


@pytest.mark.parametrize("right, wrong", [("OK\n", "KO\n"), ("(integer) 4", "(integer) 5"), ("A BC", "A BD"),
                                          ("QUEUED", "OK"), ("A BC", ""), ('b"a bc"', '"a bc"')])
def test_a_wrong_example_is_noticed(runner, right, wrong):
    with pytest.raises(AssertionError, match="in the block at line"):
        run_all(runner, SAMPLE.replace(right, wrong))


def test_dots_match_anything():
    assert matches(["a...c", "...", "z"], "abc\nx\ny\nz\n")
    assert matches(["..."], "a\nb") and matches([], "") and not matches(["a"], "b")
    assert not matches(["a...c"], "a\nc") and not matches([], "x")


@ours
def test_the_tables_of_commands_and_options_are_up_to_date():
    for path, renewed in (README, readme_tables.renewed), (readme_tables.MANUAL, readme_tables.renewed_manual):
        text = readme_tables.read(path)
        assert renewed(text) == text, "run tests/readme_tables.py"
