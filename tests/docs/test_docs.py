"""Documentation: links lead somewhere, the reference is the code's, commands and recipes that are named exist."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import prunery
from prunery.cli.commands import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*/README.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def named(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """What a heading can be linked by."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings_that_are_there(page):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_recipes_are_those_that_there_are(page):
    commands = {c.name or c.callback.__name__ for c in app.registered_commands}
    shown = "\n".join([*re.findall(r"`([^`\n]+)`", page.read_text()), *FENCE.findall(page.read_text())])
    for word in re.findall(r"^\s*prunery ([a-z]+)\b", shown, re.M):
        assert word in commands, f"prunery {word} is no command"
    for name in re.findall(r"\brecipes/(\w+\.toml)", shown):
        assert (ROOT / "recipes" / name).is_file(), f"recipes/{name} is not there"


def reference():
    spec = spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.text()


def test_the_reference_is_what_the_code_says():
    written = (ROOT / "docs" / "api.md").read_text()
    assert not re.search(r" at 0x[0-9a-f]+", written)
    for name in prunery.__all__:
        assert f"### `prunery.{name}`" in written
    if sys.version_info[:2] == (3, 11):  # other versions write some types in another way
        assert reference() == written, "make docs writes it anew"
