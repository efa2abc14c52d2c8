"""The tree of a sweep, the order of its steps, what a failure costs, and what it will cost in time."""

import pytest
from small_sweeps import EIGHT, Pretended

from prunery.chain import Place
from prunery.runs import Runs
from prunery.spec import Refused
from prunery.sweep import Cost, Outcome, carry_out, grown, rows, table, total
from prunery.train import Stopped


@pytest.fixture
def tree(sweep, folder):
    return grown(sweep(EIGHT), Place(Runs(folder / "runs"), folder))


def carried(tree, engine, there=frozenset(), retries=0, stopping=lambda: False, heard=lambda *_: None):
    return carry_out(tree, set(there), engine, retries, stopping, heard)


def test_what_chains_share_is_one_step(tree):
    assert len(tree.chains) == 8
    assert tree.asked == 8 * 4
    assert len(tree.nodes) == 2 * (2 + 2 * 4)
    assert all(chain.ends == ("finetune",) for chain in tree.chains)


def test_a_label_says_what_all_chains_through_a_step_share(tree):
    labels = tree.labels()
    assert len(set(labels.values())) == len(tree.nodes)
    words = set(labels.values())
    assert "train seed=1" in words
    assert "finetune prune.density=0.1 prune.criterion=random seed=0" in words


@pytest.mark.parametrize("width", [1, 2, 5, 100])
def test_every_step_is_made_once_and_after_what_it_needs(tree, width):
    engine = Pretended(width)
    ended = carried(tree, engine)
    assert sorted(ended.made) == sorted(tree.nodes)
    assert set(engine.tries.values()) == {1}
    at = {name: i for i, name in enumerate(engine.log)}
    assert all(at[needed] < at[name] for name, needs in tree.needs.items() for needed in needs)
    assert engine.closed
    assert engine.most == min(width, 8)


def test_nobody_waits_while_there_is_work(tree):
    """The first steps of both seeds begin together; a worker that is free takes whatever is ready."""
    engine = Pretended(2)
    busy = []
    carried(tree, engine, heard=lambda *_: busy.append(len(engine.running)))
    assert busy[:-1].count(0) == 0


def test_what_is_there_is_not_made(tree):
    there = {n for n, node in tree.nodes.items() if node.spec.kind in ("init", "train") and len(node.chain()) < 3}
    engine = Pretended(2)
    ended = carried(tree, engine, there)
    assert not set(engine.tries) & there
    assert len(ended.made) == 16
    assert set(ended.found) == there


def test_a_failure_stops_only_what_comes_behind_it(tree):
    bad = next(n for n, node in tree.nodes.items() if node.spec.kind == "prune")
    engine = Pretended(3, lambda name, nth: Outcome(name, error="it is bad" if name == bad else "", made=name != bad))
    ended = carried(tree, engine, retries=3)
    assert ended.failed == {bad: "it is bad"}
    assert engine.tries[bad] == 1
    assert len(ended.made) == len(tree.nodes) - 2


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_whose_worker_dies_is_tried_again(tree, retries):
    bad = next(n for n, node in tree.nodes.items() if node.spec.kind == "prune")

    def ends(name, nth):
        dies = name == bad and nth <= 2
        return Outcome(name, error="it died" if dies else "", again=dies, made=not dies)

    engine = Pretended(3, ends)
    ended = carried(tree, engine, retries=retries)
    assert engine.tries[bad] == retries + 1
    assert bool(ended.failed) is (retries < 2)


def test_a_stop_is_heard_and_the_workers_are_told(tree):
    engine = Pretended(2)
    with pytest.raises(Stopped):
        carried(tree, engine, stopping=lambda: len(engine.log) > 3)
    assert engine.closed
    with pytest.raises(Stopped):
        carried(tree, Pretended(2, lambda name, nth: Outcome(name, stopped=True)))


def test_a_combination_that_cannot_be_is_refused_with_its_settings(sweep, folder):
    with pytest.raises(Refused, match=r"with prune\.exclude") as refused:
        grown(sweep('[sweep]\n"prune.exclude" = [["fc1"], ["nope"]]\n'), Place(Runs(folder / "runs"), folder))
    assert "nope" in str(refused.value)


# --- cost -------------------------------------------------------------------------------------------------------------


def test_nothing_is_known_of_an_empty_folder(tree, folder):
    found = total(Cost(Runs(folder / "runs")), tree, tree.nodes, 2)
    assert (found["known"], found["unknown"]) == (0, len(tree.nodes))


def test_like_steps_say_what_others_cost(tree, folder):
    cost = Cost(Runs(folder / "runs"))
    first = next(c for c in tree.chains)
    for label, seconds in (("init", 1.0), ("train", 20.0), ("prune", 3.0), ("finetune", 10.0)):
        cost.learn(first.nodes[label], seconds)
    found = total(cost, tree, tree.nodes, 2)
    assert found["unknown"] == 0
    # Training goes by its steps: 10 seconds each, as both trainings say.
    assert found["seconds"] == 2 * (1 + 20) + 8 * (3 + 10)
    assert found["longest_chain_seconds"] == 1 + 20 + 3 + 10
    assert found["wall_seconds"] == found["seconds"] / 2
    assert total(cost, tree, tree.nodes, 100)["wall_seconds"] == 34


def test_finished_steps_are_remembered(tree, folder):
    from prunery.spec import dumps

    chain = tree.chains[0]
    for i, node in enumerate(chain.nodes.values()):
        step = folder / "runs" / node.name
        step.mkdir(parents=True)
        (step / "spec.toml").write_text(dumps(node.spec))
        parent = f'"{node.parent.name}"' if node.parent else "null"
        (step / "env.json").write_text(f'{{"parent": {parent}, "seconds": 4.0, "started": {i}}}')
    found = total(Cost(Runs(folder / "runs")), tree, tree.nodes, 1)
    assert found["unknown"] == 0
    assert found["seconds"] == 2 * (4 + 2 * 3.0) + 8 * (4 + 3.0)  # 4 s for two steps and for one: 3 s at the median


# --- results ----------------------------------------------------------------------------------------------------------


def test_the_table_is_the_mean_over_seeds():
    point = {"prune.density": 0.1}
    found = [
        {"settings": point, "seed": s, "label": "finetune", "step": f"t{s}", "accuracy": a, "density": 0.1}
        for s, a in enumerate((0.8, 0.9, 1.0))
    ]
    found.append({"settings": point, "seed": 3, "label": "finetune", "step": "t3", "failed": "it is bad"})
    (row,) = table(found)
    assert row["n"] == 3
    assert row["failed"] == 1
    assert row["accuracy"] == pytest.approx(0.9)
    assert row["accuracy_sd"] == pytest.approx(0.1)


def test_a_chain_that_failed_says_why(tree, folder):
    train = next(n for n, node in tree.nodes.items() if node.spec.kind == "train")
    found = rows(tree, Runs(folder / "runs"), {train: "it is bad"})
    assert {r["failed"] for r in found} == {"it is bad", "it was not made"}
