"""The file of results: for each row when, where and with what it was measured, and its raw figures of every round."""
import json
import os
import pathlib
import re

FILE = pathlib.Path(__file__).resolve().parent / "results.json"


def read(path):
    """Rows by name; none where there is no file yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def update(path, name, entry):
    """Puts a row's entry in its place, at once, so that a run that is broken off leaves what it has measured."""
    rows = read(path)
    rows[name] = shortened(entry)
    text = json.dumps(dict(sorted(rows.items())), indent=1)
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda m: re.sub(r"\s*\n\s*", " ", m[0]), text)  # the innermost on one line
    draft = path.with_suffix(".new")
    draft.write_text(text + "\n")
    os.replace(draft, path)


def shortened(value):
    """The same with numbers of five digits: no figure here is better than that."""
    if isinstance(value, dict):
        return {key: shortened(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shortened(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
