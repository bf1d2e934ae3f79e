"""Writers that know what must be there: each of a writer's changes says how many came before it, so that a look at the
data tells whether one was lost, or made twice."""
import contextlib
import sys
import threading
import time

from ev import NIL, Error


class Refused(Exception):
    """The server answered an error: nothing was changed."""


class Writer(threading.Thread):
    """Makes one change after the other until stop(), and connects again whenever it is cut off or refused.

    connect() gives a connection to whoever takes writes now; confirm(c) says whether what was just written there is
    kept whatever happens. acknowledged changes must be found for ever, and never more than were sent.
    """

    def __init__(self, connect, number=0, confirm=lambda c: True, made=0):
        super().__init__(daemon=True)
        self.connect, self.confirm, self.number = connect, confirm, number
        self.acknowledged = self.sent = made
        self.ended, self.error = threading.Event(), None

    def run(self):
        while not self.ended.is_set():
            try:
                with self.connect() as c:
                    n = self.check(c)
                    while not self.ended.is_set():
                        self.sent = max(self.sent, n + 1)
                        self.write(c, n)
                        n += 1
                        if self.confirm(c):
                            self.acknowledged = max(self.acknowledged, n)
            except (OSError, Refused):
                time.sleep(0.005)
            except AssertionError as e:
                self.error = e
                return

    def stop(self):
        """Ends it, and fails if it found anything wrong."""
        self.ended.set()
        self.join()
        if self.error:
            raise self.error

    def check(self, c):
        """How many changes are there."""
        there = self.count(c)
        assert self.acknowledged <= there <= self.sent, (
            f"{type(self).__name__} {self.number}: {there} changes, of {self.sent} of which {self.acknowledged} were kept")
        return there


def ask(c, *args):
    reply = c(*args)
    if isinstance(reply, Error):
        raise Refused(reply)
    return None if reply is NIL else reply


class Incr(Writer):
    def write(self, c, n):
        assert ask(c, "INCR", f"incr{self.number}") == n + 1

    def count(self, c):
        return int(ask(c, "GET", f"incr{self.number}") or 0)


class Append(Writer):
    ANEW = sys.maxsize  # after how many changes its value begins anew

    def write(self, c, n):
        ask(c, "SET" if n and n % self.ANEW == 0 else "APPEND", f"append{self.number}", f"{n};")

    def count(self, c):
        there = (ask(c, "GET", f"append{self.number}") or b"").decode().split(";")[:-1]
        first = int(there[0]) if there else 0
        assert first % self.ANEW == 0 and there == [str(first + i) for i in range(len(there))]
        return first + len(there)


class Set(Writer):
    """Each value is longer than a page."""

    def write(self, c, n):
        assert ask(c, "SET", f"set{self.number}:{n % 5}", f"{n}:" + "v" * 6000) == "OK"

    def count(self, c):
        found = [ask(c, "GET", f"set{self.number}:{i}") for i in range(5)]
        numbers = [int(v.split(b":")[0]) for v in found if v]
        assert all(v is None or v.endswith(b"v" * 6000) for v in found)
        there = max(numbers) + 1 if numbers else 0
        assert sorted(numbers) == list(range(there))[-5:]
        return there


class Transaction(Writer):
    """Moves an amount between two accounts in two databases and counts it."""

    def write(self, c, n):
        key = self.number
        replies = c.pipeline([("MULTI",), ("DECRBY", f"from{key}", 7), ("SELECT", 1), ("INCRBY", f"to{key}", 7), ("SELECT", 0),
                              ("INCR", f"moves{key}"), ("EXEC",)])  # fmt: skip
        if isinstance(replies[-1], Error):
            raise Refused(replies[-1])
        assert replies[-1][-1] == n + 1

    def count(self, c):
        there = int(ask(c, "GET", f"moves{self.number}") or 0)
        taken = int(ask(c, "GET", f"from{self.number}") or 0)
        ask(c, "SELECT", 1)
        given = int(ask(c, "GET", f"to{self.number}") or 0)
        ask(c, "SELECT", 0)
        assert (taken, given) == (-7 * there, 7 * there)
        return there


@contextlib.contextmanager
def writing(*writers):
    """They write while the block runs."""
    for w in writers:
        w.start()
    try:
        yield writers
    finally:
        for w in writers:
            w.ended.set()
        for w in writers:
            w.join()
    for w in writers:
        w.stop()
