"""Copies the product's files for the fuzzers, their sizes made small, so that small inputs meet the edges: the ends of
buffers, of windows, of a turn's share.

python3 small.py FROM TO
"""
import glob
import os
import re
import sys

SIZES = {
    "resp.h": {"RESP_BLOB_MIN": "512u"},
    "resp.c": {"UNENDED_LINE_MAX": "1024u", "STRICT_BULK_MAX": "1024"},
    "rdb.c": {"WINDOW": "seam.window"},
    "store.c": {"MIN_BUCKETS": "4", "SWEEP_SLICE": "16", "FREE_SLICE": "8", "REHASH_SLICE": "2"},
    "persist.c": {
        "RECORD_EVERY": "64u", "MARK_EVERY": "256u", "KEEP_BUFFER": "2048u", "CHUNK": "256u", "CHUNKS_AHEAD": "1024u",
        "SYNC_EVERY": "512u", "BATCH": "4", "TAIL": "256u",
    },
    "repl.c": {"TURN_SHARE": "((size_t)1024)", "SHARE_MIN": "((size_t)128)", "RECEIVE_MAX": "((size_t)256)"},
    "listen.c": {"ACCEPTS_MAX": "2"},
    "echovault.c": {
        "EVENTS_MAX": "4", "READ_MAX": "((size_t)128)", "READ_BLOB_MAX": "((size_t)256)",
        "BATCH_MAX": "12", "WINDOW": "4", "REPLY_SHARE": "((size_t)600)",
    },
}  # fmt: skip
OTHERS = {
    "echovault.c": (r"int cap = fd \+ 1024;", "int cap = fd + 2;"),
    "persist.c": (r"store_snapshot_step\(64\)", "store_snapshot_step(1)"),
}


def small(name, text):
    rules = [(rf"^(#define {macro}\b +).*?( +/\*.*)?$", rf"\g<1>{size}\2") for macro, size in SIZES.get(name, {}).items()]
    for pattern, by in rules + ([OTHERS[name]] if name in OTHERS else []):
        text, found = re.subn(pattern, by, text, flags=re.M)
        if found != 1:
            print(f"small.py: {name} has {found} times {pattern}", file=sys.stderr)
    return text


source, target = sys.argv[1:]
for path in glob.glob(os.path.join(source, "*.[ch]")):
    name = os.path.basename(path)
    with open(path) as f:
        text = small(name, f.read())
    with open(os.path.join(target, name), "w") as f:
        f.write(text)
