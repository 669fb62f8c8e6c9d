"""Pages to look at: what a data set holds, how a run went. One file each, nothing loaded from outside."""
