"""What a run leaves behind: figures, tables, their origin, and the verdicts on the claims."""
