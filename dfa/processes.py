"""Processes that train together, each on its own device: `torchrun` or `fabric run` starts them."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, TextIO

import torch
from torch import Tensor, nn

from .media import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def rank_and_world() -> tuple[int, int]:
    """Number of this process, and how many there are; (0, 1) for a single process."""
    if "LOCAL_RANK" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def say(*words: object, file: TextIO | None = None) -> None:
    """`print` without buffering, only in the first process."""
    if rank_and_world()[0] == 0:
        print(*words, file=file, flush=True)


def own_part(i: Tensor) -> Tensor:
    """The part (n / world, ...) of this process of a batch (n, ...) that is equal in all processes.

    With one process, the whole batch. Parts are equally large, so the mean of the gradients of all
    processes is the gradient of a loss that is a mean over the batch:

        i = own_part(torch.randint(len(data), (n,), generator=g))

    Later random numbers from `g` are the same in each process. Raises InputError if n is not
    divisible by the number of processes.
    """
    rank, world = rank_and_world()
    if len(i) % world:
        raise InputError(
            f"a batch of {len(i)} cannot be shared by {world} processes: start a number of"
            f" processes that divides {len(i)}"
        )
    return i[rank::world]


def connected(device: torch.device) -> Fabric:
    """Lightning Fabric for a model on `device`, connected with the other processes."""
    # Hide the options of `fabric run`: Fabric would reject a model on another device.
    options = {k: os.environ.pop(k) for k in [*os.environ] if k.startswith("LT_")}
    try:
        with warnings.catch_warnings(action="ignore"):
            from lightning_fabric import Fabric  # slow to import, not needed by a single process
            from lightning_fabric.strategies import DDPStrategy

            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
            world = rank_and_world()[1]
            here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
            # Both: a process may train one model on the CPU and the next on its GPU. NCCL does not
            # connect processes that share a GPU; gloo does, through the CPU.
            own_gpu = here <= torch.cuda.device_count()
            backend = "cpu:gloo,cuda:nccl" if own_gpu else "gloo"
            fabric = Fabric(
                accelerator=device.type if own_gpu else "cpu", devices=here,
                num_nodes=world // here, strategy=DDPStrategy(process_group_backend=backend),
            )  # fmt: skip
            fabric.launch()
    finally:
        os.environ.update(options)
    return fabric


def mean_over_processes(
    fabric: Fabric, logged: dict[str, float], parameters: list[nn.Parameter]
) -> dict[str, float]:
    """Replace the gradients by their mean over all processes. Returns the mean of `logged` too.

    One message for all. A parameter without a gradient counts as zero: another process may have
    one. As all processes know the mean loss, all stop if it is not finite.
    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    numbers = grads[0].new_tensor([*logged.values()])
    flat = torch.cat([numbers, *(g.flatten() for g in grads)])
    # Not "mean": with gloo and nccl together, Fabric asks gloo, which has no mean.
    mean = fabric.all_reduce(flat, reduce_op="sum") / fabric.world_size
    numbers, *means = mean.split([len(logged), *(p.numel() for p in parameters)])
    for p, grad in zip(parameters, means, strict=True):
        p.grad = grad.view_as(p).to(p)  # processes that share a GPU average on the CPU
    return dict(zip(logged, numbers.tolist(), strict=True))


def copy_from_first(model: nn.Module) -> None:
    """Copy the weights and buffers of the first process to all processes."""
    for tensor in model.state_dict().values():
        torch.distributed.broadcast(tensor, 0)
