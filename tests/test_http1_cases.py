"""The raw-byte cases and the page that is made of them."""

import re

import pytest

from tests.http_cases import DOCUMENT, ROOT, SECTIONS, cases, document

pytestmark = pytest.mark.once


def test_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m tests.http_cases > HTTP.md"


def test_each_section_has_cases() -> None:
    assert {case.section for case in cases()} == set(SECTIONS)


def test_each_result_has_a_case() -> None:
    header = (ROOT / "poolsrv" / "csrc" / "protocol" / "http1.h").read_text()
    table = dict(re.findall(r"X\((HTTP1_\w+), (\d+), \"", header))
    del table["HTTP1_DATA"]  # a step on the way, never the answer
    assert {case.result for case in cases()} == set(table)
    for case in cases():
        if case.status not in (0, 200):
            assert str(case.status) == table[case.result], case.name


def test_no_two_cases_send_the_same() -> None:
    seen: dict[bytes, str] = {}
    for case in cases():
        assert seen.setdefault(case.sent, case.name) == case.name
