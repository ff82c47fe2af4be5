"""One file per metric: features of a batch of pictures, and pure functions that compare them."""
