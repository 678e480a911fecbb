"""Calls within this process timed in pairs, A B B A …, as :mod:`pairs` times whole processes."""

import time
from collections.abc import Callable

from pairs import Figure, summed_up


def compare(
    name: str,
    floor_name: str,
    ours: Callable[[int], object],
    floor: Callable[[int], object],
    pairs: int,
    bar: float | None = None,
    *,
    ours_first: bool = False,
) -> Figure:
    """Call both ``pairs`` times in turn, after one pair to warm up; each call gets a number of its
    own. With ``ours_first``, what ours returned is what the floor gets instead."""
    times: list[tuple[float, float]] = []
    for number in range(-1, pairs):
        if ours_first:
            first, result = _seconds(ours, number)
            second, _ = _seconds(floor, result)
        elif number % 2:
            second, _ = _seconds(floor, number)
            first, _ = _seconds(ours, number)
        else:
            first, _ = _seconds(ours, number)
            second, _ = _seconds(floor, number)
        if number >= 0:
            times.append((first * 1000, second * 1000))
    return summed_up(name, floor_name, times, bar)


def _seconds(call: Callable[..., object], argument: object) -> tuple[float, object]:
    began = time.perf_counter()
    result = call(argument)
    return time.perf_counter() - began, result
