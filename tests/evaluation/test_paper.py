"""What the paper prints, read off its own tables again, by hand."""

import numpy as np

from dfa.evaluation import paper


def test_reported_is_what_the_paper_prints():
    """Read off the paper's own tables again, by hand."""
    table2 = paper.reported("table2").set_index(["testset", "method", "metric"])["paper"]
    table2 = table2.sort_index(level=[0, 1], sort_remaining=False)
    assert table2["subject_a", "DFA-NeRF"].tolist() == [29.12, 0.938, 3.74, 7.3, 0.46]
    assert table2["subject_b", "DFA-NeRF"].tolist() == [32.09, 0.917, 3.84, 7.1, 0.37]
    assert table2["subject_b", "Ground Truth", "blinks_per_s"] == 0.32
    assert np.isnan(table2["subject_a", "Wav2Lip", "blinks_per_s"])
    assert len(table2) == 2 * 7 * 5
    table4 = paper.reported("table4").set_index(["method", "metric"])["paper"]
    assert table4["Trans GP-VAE"].tolist() == [3.19, 4.47]
