"""Workers of a Ray cluster: every step a task with resources of its own, on whichever machine has them."""

import os
from typing import Any

from ..spec import Refused, install
from .engine import About, Outcome, Task, carried_out


class OnRay:
    """A cluster that is there (`address`, RAY_ADDRESS, or one on this machine), or one that is started here."""

    def __init__(self, about: About, cpus: int, gpus: float, address: str = "", width: int = 0) -> None:
        self.ray = _ray()
        self.about, self.cpus, self.gpus, self.most = about, cpus, gpus, width
        self.running: dict[Any, Task] = {}
        self.mine = not self.ray.is_initialized()
        if self.mine:
            self._connect(address, width * cpus)
        self._possible()
        self.one = self.ray.remote(_one).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)

    def _connect(self, address: str, cpus: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address or os.environ.get("RAY_ADDRESS"):
                self.ray.init(address=address or os.environ["RAY_ADDRESS"], **quiet)
                return
        except Exception as error:  # Ray's own and gRPC's, as the address is wrong in one way or the other
            where, why = address or "RAY_ADDRESS", " ".join(str(error).split())[:200]
            seen = f"--on: no Ray cluster answers at {where} ({why})"
            raise Refused(f"{seen}; expected one that ray start --head has started") from None
        try:
            self.ray.init(address="auto", **quiet)
        except ConnectionError:
            self._start(cpus, quiet)

    def _start(self, cpus: int, quiet: dict[str, Any]) -> None:
        try:
            self.ray.init(address="local", num_cpus=cpus or None, include_dashboard=False, **quiet)
        except Exception as error:  # Ray says it with a bare Exception
            why = " ".join(str(error).split())[:200]
            raise Refused(
                f"--on ray: Ray does not start here ({why}); expected an idle machine, or --on local"
            ) from None

    def _possible(self) -> None:
        """A machine that has what one step asks for; Ray itself would wait for one for ever."""
        there = [n["Resources"] for n in self.ray.nodes() if n["Alive"]]
        if not any(r.get("CPU", 0) >= self.cpus and r.get("GPU", 0) >= self.gpus for r in there):
            most = {k: max((r.get(k, 0) for r in there), default=0) for k in ("CPU", "GPU")}
            seen = f"resources: no machine has {self.cpus} CPUs and {self.gpus:g} GPUs"
            raise Refused(f"{seen}; expected at most {most['CPU']:g} and {most['GPU']:g}, as the largest has")

    @property
    def width(self) -> int:
        """Machines come and go."""
        there = self.ray.cluster_resources()
        fit = int(there.get("CPU", 0) // self.cpus)
        fit = min(fit, int(there.get("GPU", 0) / self.gpus + 1e-9)) if self.gpus else fit
        return max(1, min(fit, self.most) if self.most else fit)

    def room(self) -> bool:
        return len(self.running) < self.width

    def start(self, task: Task) -> None:
        self.running[self.one.remote(task, self.about)] = task

    def next(self, seconds: float) -> Outcome | None:
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        if not ready:
            return None
        task = self.running.pop(ready[0])
        try:
            return self.ray.get(ready[0])
        except self.ray.exceptions.RayError as error:
            why = " ".join(str(error).split())[:200]
            return Outcome(task.name, error=f"its worker or machine died ({type(error).__name__}: {why})", again=True)

    def close(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=30)
        self.running.clear()
        if self.mine:
            self.ray.shutdown()


def _one(task: Task, about: About) -> Outcome:
    """In a process of Ray's, which stops a task with KeyboardInterrupt."""
    return carried_out(task, about, lambda: False, print)


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise Refused(f"--on ray needs the package ray, which is missing; {install('ray', 'ray')}") from None
    return ray
