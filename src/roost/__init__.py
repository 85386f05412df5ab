"""roost: remote machines for data science, provisioned and within reach."""

__version__ = "0.1.0"
