"""One module a figure family: what it computes, draws and says."""
