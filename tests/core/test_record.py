"""Request ids: unique, and in the order of time."""

import random
import re

from lexora.core.record import RequestIds

NOW = 1_795_260_267.5


def test_an_id_is_32_hex_digits_that_begin_with_the_time() -> None:
    request_id = RequestIds(0xABCDEF).new(NOW)
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)
    assert int(request_id[:12], 16) == 1_795_260_267_500
    assert request_id[12:24] == "000000abcdef"


def test_ids_sort_by_time_and_within_a_millisecond_by_their_order() -> None:
    ids = RequestIds(7)
    made = [ids.new(NOW + i // 10 * 0.001) for i in range(1000)]
    assert sorted(set(made)) == made


def test_ids_of_two_processes_differ() -> None:
    first, second = RequestIds(1), RequestIds(2)
    assert not {first.new(NOW) for _ in range(100)} & {second.new(NOW) for _ in range(100)}


def test_ids_of_two_copies_of_a_process_differ() -> None:
    state = random.getstate()
    first = RequestIds().new(NOW)
    random.setstate(state)
    assert RequestIds().new(NOW) != first


def test_a_process_that_runs_for_years_makes_ids_of_the_same_length() -> None:
    ids = RequestIds(2**80 - 1)
    ids._count = 2**32 - 2
    assert [len(ids.new(4_000_000_000.0)) for _ in range(4)] == [32] * 4
