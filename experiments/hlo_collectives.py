"""What a compiled program says of its collectives: which, how large, and how often in a step."""

import math
import re
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8,
          "s64": 8, "u64": 8}
_COLLECTIVE = re.compile(r"= (\(?[^=]*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(?:ENTRY )?%([\w.-]+) .*\{$")
_CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    """One kind of collective in a program."""

    name: str  # all-reduce ...
    bytes: int  # of its operands together, on one device
    times: int  # in a step


def of(text: str, loop: int = 1) -> list[Collective]:
    """The collectives of a step of a compiled program (`compiled.as_text()`), the largest first.

    A loop whose length is not known counts once. Above 1, `loop` is that of `Driver.loop`: the program has so many steps and
    one more, and what comes less often than every other step is left out.
    """
    here: dict[str, list[tuple[str, int]]] = {}
    calls: dict[str, list[tuple[str, int]]] = {}
    entry = name = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and (begins := _COMPUTATION.match(line)):
            name = begins[1]
            entry = name if line.startswith("ENTRY") else entry
            here[name], calls[name] = [], []
            continue
        if found := _COLLECTIVE.search(line):
            size = sum(_BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n)
                       for kind, shape in _SHAPE.findall(found[1]) if kind in _BYTES)
            here[name].append((found[2], size))
        if " while(" in line or "calls=" in line or " call(" in line or " conditional(" in line:
            trips = _TRIPS.search(line)
            calls[name] += [(called, int(trips[1]) if trips else 1) for called in _CALLED.findall(line)]
    total: dict[tuple[str, int], int] = {}

    def go(name: str, times: int) -> None:
        for kind in here.get(name, ()):
            total[kind] = total.get(kind, 0) + times
        for called, trips in calls.get(name, ()):
            go(called, times * trips)

    go(entry, 1)
    steps = loop + 1 if loop > 1 else 1
    found = [Collective(*kind, round(times / steps)) for kind, times in sorted(total.items(), key=lambda x: -x[0][1])]
    return [collective for collective in found if collective.times]
