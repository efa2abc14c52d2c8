"""Images per second of the training loop against the ordinary way: torchvision's DataLoader with transforms, 2 workers.

Same network, batch, optimiser and machine, taking turns. The ordinary way gets PyTorch's own number of threads and is
timed after its workers have started. Real images are used where they are (--data-dir); random bytes of the same shapes
otherwise, which take the same time.
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from claim import arguments, claim, columns, finish, ratios, turns
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as T

from prunery import chain, data, models
from prunery.runs import Work
from prunery.spec import Data, Model, Train
from prunery.train import Ways, train


class Pictures(torch.utils.data.Dataset):
    """What torchvision's MNIST and CIFAR10 do for each image: an array to a picture, through the transforms."""

    def __init__(self, images: data.Images, transform: Callable) -> None:
        self.arrays = images.x.permute(0, 2, 3, 1).squeeze(3).numpy()
        self.labels, self.transform = images.y.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def main() -> None:
    asked = arguments(__doc__, data_dir="data")
    repeats = 3 if asked.quick else 7
    root = Path(asked.data_dir)
    lenet = lenet_mnist(root, repeats, 100 if asked.quick else 400)
    few = (2, 8) if asked.quick else (repeats, 25)
    contests = (lenet, resnet_cifar(root, *few), resnet_cifar(root, *few, even=True))
    rows = [["images per second (median)", "ordinary", "prunery", "ratio", "spread"]]
    rows += [[name, *(sorted(v)[len(v) // 2] for v in found.values()), *ratio(found)] for name, found in contests]
    claims = [judged(*contest, target) for contest, target in zip(contests, (5.0, 1.0, 1.0), strict=True)]
    finish(claims, columns(rows), asked)


def ratio(found: dict[str, list[float]]) -> tuple[float, str]:
    return ratios(found["prunery"], found["ordinary"])


def judged(name: str, found: dict[str, list[float]], target: float) -> dict:
    value, spread = ratio(found)
    text = f"training loop against DataLoader (2 workers), {name}"
    return claim(text, value, "times the images per second", spread, len(found["prunery"]), target, value >= target)


def lenet_mnist(root: Path, repeats: int, steps: int) -> tuple[str, dict[str, list[float]]]:
    spec = Train(data=Data(name="mnist", validation=0), batch=64, optimizer="adam", lr=1.2e-3, steps=steps)
    splits = images_of(spec.data, root)
    scale = T.Normalize(splits.mean.tolist(), splits.deviation.tolist())
    images = Pictures(splits.train, T.Compose([T.ToTensor(), scale]))
    verify(images, splits)
    network = models.build(Model(name="lenet5", input=(1, 28, 28), classes=10), 0)
    ordinary = Ordinary(plain_lenet(), images, spec)
    verify_networks(ordinary.network, network, splits)
    contestants = {"ordinary": lambda: ordinary.rate(steps), "prunery": lambda: ours(network, splits, spec)}
    return "LeNet-5, MNIST, batch 64", turns(contestants, repeats)


def resnet_cifar(root: Path, repeats: int, steps: int, even: bool = False) -> tuple[str, dict[str, list[float]]]:
    """Against PyTorch's own memory layout, and (even) against a loop that chose the better one by hand."""
    data_spec = Data(name="cifar10", validation=0, flip=True, crop=4)
    spec = Train(data=data_spec, batch=128, lr=0.1, steps=steps, channels_last=True)
    splits = images_of(spec.data, root)
    scale = T.Normalize(splits.mean.tolist(), splits.deviation.tolist())
    verify(Pictures(splits.train, T.Compose([T.ToTensor(), scale])), splits)
    varied = T.Compose([T.RandomCrop(32, 4), T.RandomHorizontalFlip(), T.ToTensor(), scale])
    images = Pictures(splits.train, varied)
    network, same = (models.build(Model(name="resnet20", input=(3, 32, 32), classes=10), 0) for _ in range(2))
    if even:
        same = same.to(memory_format=torch.channels_last)
    ordinary = Ordinary(same, images, spec)
    contestants = {"ordinary": lambda: ordinary.rate(steps), "prunery": lambda: ours(network, splits, spec)}
    layout = "both channels-last" if even else "ours channels-last"
    return f"ResNet-20, CIFAR-10 with flip and crop, batch 128, {layout}", turns(contestants, repeats)


def plain_lenet() -> nn.Module:
    """The network as a textbook writes it."""
    body = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(256, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*body, *head)


class Ordinary:
    """The loop of every tutorial."""

    def __init__(self, network: nn.Module, images: torch.utils.data.Dataset, spec: Train) -> None:
        self.network, self.spec = network.train(), spec
        self.loader = torch.utils.data.DataLoader(
            images, batch_size=spec.batch, shuffle=True, num_workers=2, persistent_workers=True
        )
        makers: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        more = {"momentum": spec.momentum} if spec.optimizer == "sgd" else {}
        self.optimizer = makers[spec.optimizer](network.parameters(), lr=spec.lr, **more)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def rate(self, steps: int) -> float:
        """Images per second, the first batches (the workers' start) not counted."""
        stream = self.batches()
        for _ in range(3):
            self.step(*next(stream))
        started = time.perf_counter()
        for _ in range(steps):
            self.step(*next(stream))
        seconds = time.perf_counter() - started
        del self.loader._iterator  # the workers rest while the others run
        self.loader._iterator = None
        return steps * self.spec.batch / seconds

    def step(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(x), y).backward()
        self.optimizer.step()


def ours(network: nn.Module, splits: data.Splits, spec: Train) -> float:
    """The product's own loop, with everything that it does beside the step: rows, looks at the loss, progress."""
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(threads=chain.fitting_threads(network, spec, splits))
        empty = data.Images(splits.test.x[:0], splits.test.y[:0])
        started = time.perf_counter()
        train(network, {}, data.Splits(**{**vars(splits), "validation": empty}), spec, Work(Path(folder)), ways)
        return (spec.steps or 0) * spec.batch / (time.perf_counter() - started)


def verify(images: Pictures, splits: data.Splits) -> None:
    """Both ways feed the same numbers to the network, image by image."""
    theirs = torch.stack([images[i][0] for i in range(256)])
    torch.testing.assert_close(theirs, data.inputs(splits.train.x[:256], splits), rtol=1e-5, atol=1e-6)


def verify_networks(plain: nn.Module, ours: nn.Module, splits: data.Splits) -> None:
    """Equal weights give equal outputs and gradients."""
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        a.data.copy_(b.data)
    x = data.inputs(splits.train.x[:64], splits)
    y = splits.train.y[:64]
    for network in (plain.train(), ours.train()):
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)


def images_of(spec: Data, root: Path) -> data.Splits:
    """The real set where it is; random bytes of its shape and number otherwise."""
    if data.found(spec.name, root):
        return data.load(spec, root)
    rng, facts = torch.Generator().manual_seed(0), data.facts(spec, root)
    sizes = {"train": 60000 if spec.name == "mnist" else 50000, "validation": 0, "test": 1000}
    draw = lambda high, *shape: torch.randint(0, high, shape, generator=rng)  # noqa: E731
    parts = {k: data.Images(draw(256, n, *facts.shape).to(torch.uint8), draw(10, n)) for k, n in sizes.items()}
    half = torch.full((facts.shape[0],), 0.5)
    return data.Splits(spec, facts, **parts, mean=half, deviation=half / 2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torchvision's and the workers' own remarks
    main()
