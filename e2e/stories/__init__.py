"""
One user story a file, told on a real cluster: `ROWS` names what it promises, `tell` lives through it.

The first, `install`, makes what the others work on.
"""
