"""A second device, as real as the first: its tensors say so, and the CPU computes for them.

A GPU path can so be run where there is no GPU, forwards, backwards and through the optimiser. As on
a GPU, an operation that is given tensors of both devices raises, but for copies, for numbers
(tensors without dimensions) and for indices on the CPU. PyTorch's own way to add a device in Python
is used (PrivateUse1). Fake CUDA tensors (`FakeTensorMode`) have no values, and a training reads
values; nor can a PyTorch without CUDA copy to them.
"""

from functools import partial

import torch
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "second"
CPU, aten = torch.device("cpu"), torch.ops.aten
COPIES = {aten.copy_, aten._to_copy, aten._copy_from}
STRICT = {aten.cat, aten.stack, aten.mm, aten.bmm, aten.addmm}  # not even numbers may be elsewhere
# Indices may be on the CPU; the lengths of a packed sequence must be.
FIRST = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
FIRST |= {aten._pack_padded_sequence, aten._pack_padded_sequence_backward}


class Backend(_DummyBackendModule):
    """What autocast asks of a device."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend(NAME, Backend())


class Second(torch.Tensor):
    """A tensor on the second device; `held` has its numbers, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=f"{NAME}:0",
        )  # fmt: skip
        made.held = held
        return made

    def __tensor_flatten__(self):  # lets nn.Module.to exchange its parameters for these
        return ["held"], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, *args, **(kwargs or {}))


@torch.inference_mode(False)  # an inference tensor cannot be such a wrapper
def computed(func, *args, **kwargs):
    """What `func` gives, computed on the CPU. RuntimeError if it is given tensors of both."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, Second)]
    kind = func.overloadpacket
    checked = tree_leaves((args[0], args[2:])) if kind in FIRST else tensors
    elsewhere = [x for x in checked if isinstance(x, torch.Tensor) and not isinstance(x, Second)]
    if ours and kind not in COPIES and any(x.dim() or kind in STRICT for x in elsewhere):
        raise RuntimeError(f"{func} has tensors on {NAME} and on the CPU")

    def on_cpu(x):
        if isinstance(x, Second):
            return x.held
        return CPU if isinstance(x, torch.device) else x

    out = func(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
    if func is aten.copy_.default:
        return args[0]
    device = kwargs.get("device")
    here = bool(ours) if device is None else device.type == NAME
    known = {id(x.held): x for x in ours}  # of an operation in place: the same object again

    def back(x):
        if not here or not isinstance(x, torch.Tensor):
            return x
        if kind is aten._pack_padded_sequence and x.dtype == torch.int64:
            return x  # the sizes stay on the CPU, as on a GPU
        return known[id(x)] if id(x) in known else Second(x)

    return tree_map(back, out)


everything = torch.library.Library("_", "IMPL")
everything.fallback(computed, "PrivateUse1")  # what begins there: torch.zeros(3, device="second")
some = torch.library.Library("aten", "IMPL")
for kind in (
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.eye.default,
    aten.eye.m,
):
    # Else these are an empty tensor that is then resized, which ours cannot be.
    some.impl(kind, partial(computed, kind), "PrivateUse1")
for kind in (aten.lstm.input, aten.lstm.data, aten.gru.input, aten.gru.data):
    # Elsewhere than on the CPU these are single kernels that a device has or has not.
    some.impl(kind, decomposition_table[kind], "AutogradPrivateUse1")
