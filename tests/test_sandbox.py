"""What keeps an attacker's gain small: how the binary is built."""
import re
import subprocess

import pytest

from ev import ECHOVAULT, SANITIZED, need, ours

pytestmark = ours


# ---- the binary --------------------------------------------------------------------------------------------


@pytest.mark.skipif(SANITIZED, reason="built for finding faults")
def test_the_binary_is_hardened():
    read = subprocess.run([need("readelf"), "-hldW", "--dyn-syms", ECHOVAULT], capture_output=True, text=True, check=True).stdout
    assert re.search(r"Type:\s+DYN", read) and re.search(r"FLAGS_1.*PIE", read), "the code is always at the same place"
    assert "GNU_RELRO" in read and "BIND_NOW" in read, "addresses of functions can be written to"
    assert re.search(r"GNU_STACK\s.*\sRW\s", read) and not re.search(r"LOAD .* RWE", read), "memory is written and run"
    assert "__stack_chk_fail" in read, "stacks have no canaries"
    assert "__snprintf_chk" in read or "__memcpy_chk" in read, "libc does not check lengths"
