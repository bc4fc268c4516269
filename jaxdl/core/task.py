"""What an algorithm says of itself. The command line asks this and nothing else of it."""

from typing import NamedTuple


class Score(NamedTuple):
    """A number that says how good something is."""

    name: str  # its key in what `evaluate` returns
    higher: bool  # better when higher
    label: str  # of its axis, with the unit

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: `sign * value` is better when higher."""
        return 1 if self.higher else -1
