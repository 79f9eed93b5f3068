"""The executable, where it was built: no Python, no environment, another folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.app_server import ROOT, browser, page_of, served

FILE = ROOT / "dist/image-defender-app"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_attacks_and_purifies_a_picture(tmp_path: Path) -> None:
    if not FILE.is_file():
        pytest.skip("needs dist/image-defender-app: make app")
    copied = tmp_path / "somewhere" / "app"
    copied.parent.mkdir()
    copied.hardlink_to(FILE)
    with (
        served([str(copied)], {}, tmp_path) as address,
        browser() as made,
        page_of(made, address) as page,
    ):
        page.goto(address)
        page.click("[data-test=try]")
        page.wait_for_selector("text=/^done in/")
        roles = page.locator("figure .role").all_inner_texts()
        assert {"original", "attacked", "combined"} <= set(roles)
        page.goto(f"{address}/browse")
        page.wait_for_selector("main")
