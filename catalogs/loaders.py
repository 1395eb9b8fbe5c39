"""Dataset versions in PyTorch and Hugging Face.

A map-style dataset, with an order that resumes in the middle of an epoch whatever the number of workers:

    from torch.utils.data import DataLoader
    from catalogs.catalog import Catalog
    from catalogs.loaders import collate

    windows = Catalog.open("worldline-data").dataset("streets").to_torch(window=8, include=("frames", "labels"), split="train")
    order = windows.order(seed=0)
    for epoch in range(2):
        order.set_epoch(epoch)
        for batch in DataLoader(windows, batch_size=4, sampler=order, num_workers=2, collate_fn=collate):
            frames = batch["frames"].float() / 255  # [4, 8, H, W, 3]
            questions = [table["question"].to_pylist() for table in batch["labels"]]

A stream of batches, shared out to ranks and their workers:

    from torch.utils.data import DataLoader
    from catalogs.catalog import Catalog

    windows = Catalog.open("worldline-data").dataset("streets@1").to_torch(window=8, step_s=0.1, include=("frames", "cameras"))
    stream = windows.stream(batch_size=4, seed=0, rank=0, world_size=2)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in range(2):
        stream.set_epoch(epoch)
        for batch in loader:
            poses = batch["world_from_camera"]  # [4, 8, 4, 4]

Labels as a Hugging Face dataset:

    from catalogs.catalog import Catalog

    questions = Catalog.open("worldline-data").dataset("streets").to_huggingface("labels")
    metric = questions.filter(lambda row: row["metric"])
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, default_collate, get_worker_info

from catalogs.samples import Samples
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    import datasets

State = dict[str, int | bool]


class Windows(Dataset[Any]):
    """Windows of a version, by number; what a sample holds is told at `Samples.sample`, arrays are tensors here.

    Any number of threads and worker processes may read at once (fork, forkserver, spawn; on a remote store not fork).
    """

    def __init__(self, samples: Samples, transform: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.samples = samples
        self.transform = transform

    @property
    def left_out(self) -> dict[str, str]:
        """Why a clip has no windows here, by clip."""
        return self.samples.left_out

    def __repr__(self) -> str:
        return repr(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Any:
        sample = self.samples.sample(number)
        tensors = {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in sample.items()}
        return self.transform(tensors) if self.transform else tensors

    def order(
        self, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world_size: int = 1, equal: bool = False
    ) -> "WindowOrder":
        """Return the order of an epoch, as a sampler; see `WindowOrder`."""
        return WindowOrder(len(self), seed=seed, shuffle=shuffle, rank=rank, world_size=world_size, equal=equal)

    def stream(
        self,
        batch_size: int | None = None,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        equal: bool = False,
    ) -> "WindowStream":
        """Return an iterable dataset of the same windows; see `WindowStream`.

        Args:
            batch_size: collated batches of so many are yielded; single samples where None.
            seed: of the shuffling.
            shuffle: whether the order is random and another in every epoch.
            rank: which share of the windows, from 0.
            world_size: how many shares.
            equal: leave out the last few windows, so that all ranks take equally many steps.
        """
        order = self.order(seed=seed, shuffle=shuffle, rank=rank, world_size=world_size, equal=equal)
        return WindowStream(self, order, batch_size)


class WindowOrder(Sampler[int]):
    """The order in which one rank visits windows: decided by seed and epoch, the same for any number of workers.

    The ranks' shares are disjoint and make up all windows.
    """

    def __init__(self, windows: int, *, seed: int, shuffle: bool, rank: int, world_size: int, equal: bool) -> None:
        """Describe an order.

        Args:
            windows: how many there are.
            seed: of the shuffling.
            shuffle: whether the order is random and another in every epoch.
            rank: which share of the windows, from 0.
            world_size: how many shares.
            equal: leave out the last few windows, so that all ranks take equally many steps.

        Raises:
            WorldlineError: if the rank is not one of the world's.
        """
        if not 0 <= rank < world_size:
            raise WorldlineError(f"rank must be from 0 to world_size - 1 ({world_size - 1}), not {rank}")
        self.windows, self.seed, self.shuffle, self.equal = windows, seed, shuffle, equal
        self.rank, self.world_size = rank, world_size
        # Shared memory, so that workers that live on see the next epoch.
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()  # epoch, and windows of it already consumed

    @property
    def epoch(self) -> int:
        """The epoch that iterating gives."""
        return int(self._place[0])

    @property
    def consumed(self) -> int:
        """How many of this rank's windows of the epoch are passed over, because they were consumed before."""
        return int(self._place[1])

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; the one that was resumed goes on where it was."""
        if epoch != self.epoch:
            self._place[0], self._place[1] = epoch, 0

    def state_dict(self, consumed: int) -> State:
        """Return what `load_state_dict` needs to go on in the middle of this epoch.

        Args:
            consumed: windows of the epoch that the training loop of this rank has had (batches times batch size;
                workers are ahead of it, so that only the loop knows).
        """
        return {**self._identity(), "epoch": self.epoch, "consumed": consumed}

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            WorldlineError: if the state belongs to other windows or another order.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise WorldlineError(f"the state was taken with {name}={state.get(name)}, not {value}: it fits no other order")
        self._place[0], self._place[1] = int(state["epoch"]), int(state["consumed"])

    def _identity(self) -> State:
        names = ("windows", "seed", "shuffle", "equal", "rank", "world_size")
        return {name: getattr(self, name) for name in names}

    def numbers(self) -> np.ndarray:
        """Return the windows of this epoch that are still to be visited."""
        everything = np.arange(self.windows)
        if self.shuffle:
            everything = np.random.default_rng([self.seed, self.epoch]).permutation(self.windows)
        if self.equal:
            everything = everything[: self.windows - self.windows % self.world_size]
        return everything[self.rank :: self.world_size][self.consumed :]

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers().tolist())

    def __len__(self) -> int:
        share = self.windows // self.world_size
        if not self.equal:
            share += self.rank < self.windows % self.world_size
        return max(share - self.consumed, 0)


class WindowStream(IterableDataset[Any]):
    """Windows in an order, dealt out to workers; give it to a DataLoader with `batch_size=None`.

    Workers take turns, by batches (or samples), so that what arrives has the same order with any number of workers.
    """

    def __init__(self, windows: Windows, order: WindowOrder, batch_size: int | None) -> None:
        if batch_size is not None and batch_size < 1:
            raise WorldlineError(f"batch_size must be at least 1, not {batch_size}")
        self.windows, self.order, self.batch_size = windows, order, batch_size

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; also reaches workers that live on."""
        self.order.set_epoch(epoch)

    def state_dict(self, consumed: int) -> State:
        """Return what `load_state_dict` needs; see `WindowOrder.state_dict` (`consumed` counts windows, not batches)."""
        return self.order.state_dict(consumed)

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken."""
        self.order.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        numbers = self.order.numbers()
        size = self.batch_size or 1
        for begin in range(mine * size, len(numbers), workers * size):
            samples = [self.windows[int(number)] for number in numbers[begin : begin + size]]
            yield collate(samples) if self.batch_size else samples[0]

    def __len__(self) -> int:
        return -(-len(self.order) // (self.batch_size or 1))


def collate(samples: list[Any]) -> Any:
    """Stack samples into a batch as PyTorch does; Arrow tables, and tensors of different shapes, become lists."""
    first = samples[0]
    if isinstance(first, dict):
        return {name: collate([sample[name] for sample in samples]) for name in first}
    if isinstance(first, pa.Table):
        return samples
    if isinstance(first, torch.Tensor) and any(sample.shape != first.shape for sample in samples):
        return samples
    return default_collate(samples)


def huggingface_dataset(table: pa.Table, identity: str) -> "datasets.Dataset":
    """Return a Hugging Face dataset over an Arrow table, without a copy.

    Args:
        table: its rows.
        identity: what names these rows for good; the fingerprint derives from it.

    Raises:
        WorldlineError: if the package `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise WorldlineError("Hugging Face datasets are not installed: pip install datasets") from error
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:16])
