"""Commonplace's runtime: api, worker, migrations and the command line."""
