"""A recipe that takes no time, and workers that only say that they have worked."""

from prunery.sweep import Outcome

RECIPE = """
[data]
name = "digits"
[model]
name = "lenet_300_100"
[[step]]
kind = "train"
steps = 2
[[step]]
kind = "prune"
density = 0.5
[[step]]
kind = "train"
label = "finetune"
steps = 1
"""
EIGHT = """
seeds = 2
[sweep]
"prune.density" = [0.5, 0.1]
"prune.criterion" = ["magnitude", "random"]
"""
SLOW = """
import os, time, torch
class Slow(torch.nn.Sequential):
    def forward(self, x):
        print("a network that prints")
        time.sleep(0.2 if self.training and os.path.exists({flag!r}) else 0)
        return super().forward(x)
def slow(input, classes):
    return Slow(torch.nn.Flatten(), torch.nn.Linear(64, classes))
"""


class Pretended:
    """Workers without work; `ends` says how a task ends, by its name and its number of tries."""

    def __init__(self, width, ends=lambda name, nth: Outcome(name, made=True)):
        self.width, self.ends = width, ends
        self.running, self.log, self.tries, self.most, self.closed = [], [], {}, 0, False

    def room(self):
        return len(self.running) < self.width

    def start(self, task):
        self.running.append(task.name)
        self.most = max(self.most, len(self.running))
        self.tries[task.name] = self.tries.get(task.name, 0) + 1

    def next(self, seconds):
        name = self.running.pop(0)
        outcome = self.ends(name, self.tries[name])
        self.log.append(name)
        return outcome

    def close(self):
        self.closed = True
