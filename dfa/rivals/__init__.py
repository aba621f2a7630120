"""The methods that the paper compares with, each small enough to be read beside its own paper.

One interface, one set of recordings, one budget: `Method.fit`, `Method.render`.
"""

from .adnerf import ADNeRF, torso_mask
from .dfanerf import DFANeRF
from .lsp import LSP
from .method import Method, Recording

__all__ = ["LSP", "ADNeRF", "DFANeRF", "Method", "Recording", "torso_mask"]
