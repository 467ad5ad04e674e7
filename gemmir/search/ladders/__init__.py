"""The road from the naive loops to the finished kernel, rung by rung."""
