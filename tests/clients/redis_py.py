"""redis-py as applications use it: redis_py.py PORT python|hiredis, which names what reads the replies."""
import asyncio
import sys
import threading
import time

import redis
import redis.asyncio

port, reader = int(sys.argv[1]), sys.argv[2]
if reader == "hiredis":
    import hiredis

    print("version", hiredis.__version__)
    parser = redis.connection.HiredisParser
else:
    print("version", redis.__version__)
    parser = redis.connection.PythonParser
pool = redis.ConnectionPool(port=port, parser_class=parser, decode_responses=True)
r = redis.Redis(connection_pool=pool)


def done(what):
    print("ok", what, flush=True)


# A cache with expiry: values of every kind of byte and of some length.
binary = redis.Redis(port=port, connection_pool=redis.ConnectionPool(port=port, parser_class=parser))
for value in [b"", bytes(range(256)) * 300, b"\r\n$-1\r\n"]:
    assert binary.set("page", value, px=60000) and binary.get("page") == value
assert r.set("short", "x", px=30) and 0 < r.pttl("short") <= 30
time.sleep(0.05)
assert r.get("short") is None and r.exists("short") == 0
assert binary.ttl("page") == 60
done("cache")

# Sessions: touched by every request, and gone by themselves.
assert r.setex("session:1", 100, '{"user": 7}') and r.expire("session:1", 200, gt=True) and r.ttl("session:1") == 200
assert r.persist("session:1") and r.ttl("session:1") == -1 and r.delete("session:1") == 1
done("session")

assert [r.incr("hits"), r.incrby("hits", 10), r.decr("hits"), r.incrbyfloat("hits", 0.5)] == [1, 11, 10, 10.5]
done("counters")

with r.pipeline(transaction=False) as p:
    for i in range(1000):
        p.set(f"p{i}", i).get(f"p{i}")
    assert p.execute()[1::2] == [str(i) for i in range(1000)]
done("pipeline")


def transfer(p):
    balance = int(p.get("balance") or 100)
    p.multi()
    p.set("balance", balance - 30)


assert r.transaction(transfer, "balance") == [True] and r.get("balance") == "70"
with r.pipeline() as p:
    p.watch("balance")
    r.set("balance", 0)
    p.multi()
    p.set("balance", 1)
    try:
        p.execute()
        sys.exit("a changed key was not noticed")
    except redis.WatchError:
        pass
done("transaction")

heard, ready = [], threading.Event()


def listen():
    with r.pubsub() as sub:
        sub.subscribe("news")
        sub.psubscribe("weather.*")
        for message in sub.listen():
            if message["type"] == "psubscribe":
                ready.set()
            elif message["type"].endswith("message"):
                heard.append((message["channel"], message["data"]))
            if len(heard) == 2:
                return


thread = threading.Thread(target=listen)
thread.start()
assert ready.wait(10) and r.publish("news", "hello") == 1 and r.publish("weather.oslo", "rain") == 1
thread.join(10)
assert heard == [("news", "hello"), ("weather.oslo", "rain")]
done("pub/sub")

assert sorted(r.scan_iter(match="p99*", count=100)) == sorted(k for k in (f"p{i}" for i in range(1000)) if k[:3] == "p99")
assert r.info("server")["redis_version"] and r.client_list() and r.config_get("maxmemory*") and r.dbsize() > 1000
done("scan and info")


async def awaited():
    async with redis.asyncio.Redis(port=port, decode_responses=True) as a:
        assert await asyncio.gather(*(a.set(f"a{i}", i) for i in range(100))) == [True] * 100
        assert await a.mget([f"a{i}" for i in range(100)]) == [str(i) for i in range(100)]
        async with a.pipeline(transaction=True) as p:
            assert await p.incr("async").expire("async", 10).execute() == [1, True]
        async with a.pubsub() as sub:
            await sub.subscribe("later")
            assert (await sub.get_message(timeout=10))["type"] == "subscribe"
            await a.publish("later", "now")
            assert (await sub.get_message(timeout=10))["data"] == "now"


asyncio.run(awaited())
done("asyncio")
