"""The command line: the only layer that parses arguments, and the only one that exits."""
