"""Whether a run fits an accelerator that is not there, and what a round costs on it at least."""
