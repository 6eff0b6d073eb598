"""What a run leaves behind, and what people read: metrics, progress, plots, comparisons."""
