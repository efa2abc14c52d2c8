"""A cluster of two nodes on this machine, of which one is lost half-way."""

import sys

import pytest
from small_sweeps import EIGHT

from prunery.chain import Place
from prunery.runs import Runs, asked
from prunery.spec import Refused
from prunery.sweep import About, carry_out, grown
from prunery.sweep.onray import OnRay


def test_without_ray_it_is_one_line(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r"prunery\[ray\]"):
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
def test_what_no_machine_has_is_refused(cluster, folder):
    with pytest.raises(Refused, match="no machine has 99 CPUs"):
        OnRay(About(str(folder), "", "", "cpu", 1, 1.0), 99, 0)
    import ray

    ray.shutdown()
