"""Receiver indices: random, unique among the live ones, and reusable once freed."""

from wgd.core.index_table import IndexTable


def test_indices_are_the_random_bytes_they_were_drawn_from() -> None:
    table: IndexTable[str] = IndexTable(lambda size: b"\x01\x02\x03\x04"[:size])
    assert table.allocate("a") == 0x04030201
    assert table.owner(0x04030201) == "a"
    assert table.owner(5) is None


def test_a_live_index_is_drawn_again_until_it_is_free() -> None:
    draws = iter([b"\x07\0\0\0", b"\x07\0\0\0", b"\x08\0\0\0", b"\x07\0\0\0"])
    table: IndexTable[str] = IndexTable(lambda _size: next(draws))
    assert table.allocate("a") == 7
    assert table.allocate("b") == 8
    table.free([7, 99])
    assert table.allocate("c") == 7
    assert len(table) == 2
