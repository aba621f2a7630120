"""The results of a run: figures, tables, their origin, and the verdicts on the paper's claims."""
