"""The evaluation (section 4 of the paper): metrics, protocol, judges and baselines."""
