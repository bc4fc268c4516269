"""Memory that a process may still take."""

import subprocess
import sys

from jaxdl.core import memory

LIMITED = """
import resource
from jaxdl.core import memory
assert memory.left_of_limit() is None
resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9,) * 2)
before = memory.left_of_limit()
kept = bytearray(10**9)
print(before, memory.left_of_limit(), memory.available_bytes())
"""


def test_a_limit_of_address_space_is_part_of_what_is_available():
    said = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, timeout=60).stdout
    before, after, available = map(int, said.split())
    assert 2.5e9 < before < 3e9
    assert 0.99e9 < before - after < 1.1e9
    assert available <= after


def test_without_a_limit_it_is_that_of_the_machine():
    assert memory.available_bytes() > 0
