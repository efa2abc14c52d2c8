"""`--tensorboard FOLDER`: the rows of metrics as TensorBoard scalars, a sub-folder per step."""

from pathlib import Path
from typing import Any

from ..runs import writing
from ..spec import Node, Refused, install


class Board:
    """Listens to a chain and writes what it hears."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, ""
        self.summary_writer = _summary_writer()
        self.writer: Any = None
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def began(self, label: str, node: Node) -> None:
        self.close()
        self.name = node.name

    def tick(self, event: dict[str, Any]) -> None:
        """Numbers only: rows of metrics."""
        if "row" not in event:
            return
        row = dict(event["row"])
        step = row.pop("step")
        with writing(self.folder):
            # A resumed run repeats what it did after its checkpoint: from here on, earlier events do not count.
            self.writer = self.writer or self.summary_writer(str(self.folder / self.name), purge_step=step)
            for tag, value in row.items():
                self.writer.add_scalar(tag, value, step)
            self.writer.flush()

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        self.writer = None


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        needed = "--tensorboard needs the package tensorboard, which is missing"
        raise Refused(f"{needed}; {install('tensorboard', 'tensorboard')}") from None
    return SummaryWriter
