"""Programs that run on a box: their text is sent there, and nothing here imports them.

They need Python 3.10 (Ubuntu 22.04) and its standard library alone.
"""
