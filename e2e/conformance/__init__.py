"""`make conformance`: the official MCP suite and the official Python client against a running api."""
