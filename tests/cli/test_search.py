"""`prunery search` from start to end."""

import json

RECIPE = """
[data]
name = "digits"
[model]
name = "lenet_300_100"
[[step]]
kind = "train"
steps = 60
optimizer = "adamw"
lr = 0.01
eval_every = 15
[[step]]
kind = "prune"
density = 0.5
"""
SPACE = """
name = "small"
recipe = "r.toml"
target = "accuracy >= 0.85"
objective = "minimise density"
engine = "greedy"
trials = 5
budget = ["train.steps=45"]
[space]
"prune.density" = [0.02, 0.05, 0.1, 0.2, 0.5, 0.9]
"""


def test_the_command_tells_trials_and_leaves_files(prunery, tmp_path):
    folder = tmp_path
    (folder / "r.toml").write_text(RECIPE)
    (folder / "s.toml").write_text(SPACE)
    words = [
        "search",
        str(folder / "s.toml"),
        "--runs",
        str(folder / "runs"),
        "--out",
        str(folder / "out"),
        "--threads",
        "1",
    ]
    done = prunery(*words)
    assert done.code == 0, done.err
    assert "trial 1 of at most 5" in done.err
    assert "best: prune.density" in done.out
    assert {p.name for p in (folder / "out").iterdir()} == {"trials.csv", "best.json", "front.svg", "front.png"}
    told = json.loads(prunery(*words, "--json", "--quiet", "--trials", "3").out)
    assert told["trials"] == 3
    assert prunery(*words, "--trials", "0").code == 2
