"""Contents of a data set: columns, text, figure, leaks."""
