"""What a data set holds: columns, text, figure, leaks."""
