"""What can be tuned, one idea a file: when a step is worth trying, and the figure it is judged by."""
