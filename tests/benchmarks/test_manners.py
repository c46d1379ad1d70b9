"""The table of `benchmarks/manners`."""

from pathlib import Path

from family import Family
from implementations import Implementation
from manners_probe import Refusal
from manners_rounds import _class, markdown


def test_a_table_for_each_family_and_a_line_for_each_thing() -> None:
    implementations = [Implementation(name, Path(name), "1") for name in ("wgd", "other")]
    seen = {
        (family, name): {"a mark": f"{name} {family.value}", "a refusal": "EHOSTUNREACH"}
        for family in Family
        for name in ("wgd", "other")
    }
    assert markdown(implementations, seen) == (
        "wgd: 1\nother: 1\n"
        "\n| IPv4 | wgd | other |\n|---|---|---|\n"
        "| a mark | wgd v4 | other v4 |\n| a refusal | EHOSTUNREACH | EHOSTUNREACH |\n"
        "\n| IPv6 | wgd | other |\n|---|---|---|\n"
        "| a mark | wgd v6 | other v6 |\n| a refusal | EHOSTUNREACH | EHOSTUNREACH |\n"
    )


def test_traffic_classes_and_refusals_in_words() -> None:
    assert [_class(each) for each in (0, 1, 2, 3, 0x88, None)] == [
        *("not-ECT", "ECT(1)", "ECT(0)", "CE", "not-ECT, DSCP 34", "dropped")
    ]
    assert str(Refusal("EHOSTUNREACH", 0.00123)) == "EHOSTUNREACH after 1.2 ms"
    assert str(Refusal("", 3)) == "nothing in 3 s"
