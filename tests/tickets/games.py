"""Lotteries of tests: where they are carried out, a look into their folders, and what is compared of them."""

from pathlib import Path

from prunery.chain import Place
from prunery.runs import Runs
from prunery.tickets import Pace
from prunery.tickets.crew import Crew
from prunery.tickets.lottery import Game, set_up
from prunery.train import Ways

ROOT = Path(__file__).parents[2]


def place_of(folder, said=None, **ways):
    say = (lambda line: None) if said is None else said.append
    return Place(Runs(folder), ROOT / "data", Ways(**{"threads": 1} | ways), say=say)


def game_of(lottery, folder, source=None):
    place = place_of(folder)
    return Game(set_up(lottery, place), place, Crew(1), Pace(), source)


def read(steps):
    """Records and what was kept, without the conditions."""
    files = [[(s.folder / name) for name in ("result.json", "kept.safetensors")] for s in steps]
    return [[f.read_bytes() if f.exists() else b"" for f in pair] for pair in files]
