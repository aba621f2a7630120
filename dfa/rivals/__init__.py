"""The methods that the paper compares with, each small enough to be read beside its own paper.

One interface, one set of recordings, one budget: `Method.fit`, `Method.render`.
"""

from .adnerf import ADNeRF, torso_mask
from .atvg import ATVG
from .crops import Faces
from .dfanerf import DFANeRF
from .lsp import LSP
from .makeittalk import MakeItTalk
from .method import Method, Recording
from .parts import as_frames
from .wav2lip import Wav2Lip

__all__ = [
    "ATVG",
    "LSP",
    "ADNeRF",
    "DFANeRF",
    "Faces",
    "MakeItTalk",
    "Method",
    "Recording",
    "Wav2Lip",
    "as_frames",
    "torso_mask",
]
