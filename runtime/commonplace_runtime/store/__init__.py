"""
Postgres: `foo.py` beside `foo.sql`, one typed function per named statement.

Functions take a connection (or pool) first and never commit. SQL stands in `.sql` files in blocks that begin
with a line `-- name --`; `statements("foo")` reads them.
"""
