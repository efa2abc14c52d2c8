"""A cluster of two nodes on this machine, of which one is lost half-way."""

import sys

import pytest
from small_sweeps import EIGHT

from prunery.chain import Place
from prunery.runs import Remote, Runs, Store, asked
from prunery.spec import Refused
from prunery.sweep import About, carry_out, grown
from prunery.sweep.onray import OnRay


def test_without_ray_it_is_one_line(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r"install ray: .*pip install "):
        OnRay(About(str(folder), "", "", "cpu", 1, 1.0), 1, 0)


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray", reason="ray is an extra: pip install 'prunery[ray]'")
    from ray.cluster_utils import Cluster

    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", there.address)
    yield there
    there.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_a_lost_machine_loses_nothing(cluster, sweep, folder):
    other = cluster.add_node(num_cpus=1)
    runs = Runs(folder / "runs")
    tree = grown(sweep(EIGHT), Place(runs, folder))
    engine = OnRay(About(str(runs.root), str(folder), str(folder), "cpu", 1, 0.0), 1, 0)
    assert engine.width == 2
    lost = []

    def heard(outcome, ended):
        if len(ended.made) == 5 and not lost:
            lost.append(outcome)
            cluster.remove_node(other, allow_graceful=False)

    with asked(runs.root, "s", "s", {label: name for name, label in tree.labels().items()}):
        ended = carry_out(tree, set(), engine, 3, lambda: False, heard)
    assert lost
    assert not ended.failed
    assert len(set(ended.made)) == len(ended.made)
    assert {s.name for s in runs.steps()} == set(tree.nodes)


@pytest.mark.filterwarnings("ignore")
def test_machines_need_share_nothing_but_a_store(cluster, sweep, folder):
    """What the driver's machine has in the end came through the store: the workers' folder is another."""
    store = Store(f"file://{folder}/store")
    store.begin()
    mine = Remote(folder / "mine", store)
    tree = grown(sweep('[sweep]\n"prune.density" = [0.5]\n'), Place(mine, folder))
    about = About(str(folder / "theirs"), str(folder), str(folder / "nowhere"), "cpu", 1, 0.0, store.url)
    ended = carry_out(tree, tree.there(mine), OnRay(about, 1, 0), 0, lambda: False, lambda *_: None)
    assert not ended.failed
    assert store.steps() == set(ended.made) == set(tree.nodes)
    assert [mine.fetch(name).result["parameters"] for name in tree.nodes] == [50610] * 4


@pytest.mark.filterwarnings("ignore")
def test_what_no_machine_has_is_refused(cluster, folder):
    with pytest.raises(Refused, match="no machine has 99 CPUs"):
        OnRay(About(str(folder), "", "", "cpu", 1, 1.0), 99, 0)
    import ray

    ray.shutdown()
