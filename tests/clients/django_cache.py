"""Django with django-redis as its cache and, in the cache, its sessions: django_cache.py PORT."""
import importlib.metadata
import sys
import time

import django
from django.conf import settings

settings.configure(
    CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://127.0.0.1:{sys.argv[1]}/1"}},
    SESSION_ENGINE="django.contrib.sessions.backends.cache", SECRET_KEY="test", USE_TZ=True,
)  # fmt: skip
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import cache  # noqa: E402

print("version", importlib.metadata.version("django-redis"), "with Django", django.get_version())

cache.set("page", {"title": "x", "body": "y" * 100000}, timeout=100)
assert cache.get("page")["body"] == "y" * 100000 and cache.ttl("page") == 100
assert cache.add("page", 1) is False and cache.add("other", 1) is True and cache.get("nothing", 7) == 7
assert cache.get_or_set("made", lambda: 3, 10) == 3 and cache.get("made") == 3
assert cache.touch("made", 50) and cache.ttl("made") == 50 and cache.persist("made") and cache.ttl("made") is None
cache.set("short", 1)
assert cache.pexpire("short", 30)
time.sleep(0.05)
assert cache.get("short") is None
print("ok cache")

cache.set_many({f"k{i}": i for i in range(50)}, timeout=60)
assert cache.get_many([f"k{i}" for i in range(50)]) == {f"k{i}": i for i in range(50)}
assert sorted(cache.keys("k1*")) == sorted(["k1"] + [f"k{i}" for i in range(10, 20)])
assert len(list(cache.iter_keys("k*"))) == 50 and cache.delete_many(["k0", "k1"]) == 2
assert cache.delete_pattern("k*") == 48
print("ok many keys and patterns")

cache.set("n", 5, timeout=60)
assert cache.incr("n", 2) == 7 and cache.decr("n") == 6 and cache.ttl("n") == 60
print("ok counters")

session = SessionStore()
session["user"] = 42
session.set_expiry(300)
session.save()
again = SessionStore(session_key=session.session_key)
assert again["user"] == 42
again["cart"] = [1, 2]
again.save()
again.cycle_key()
assert SessionStore(session_key=again.session_key)["cart"] == [1, 2]
assert not SessionStore().exists(session.session_key)
again.flush()
assert SessionStore().exists(again.session_key or "none") is False
print("ok sessions")
cache.clear()
assert cache.get("page") is None
print("ok clear")
