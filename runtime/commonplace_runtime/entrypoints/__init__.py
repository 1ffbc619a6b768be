"""Requests in: convert, call one service, convert back."""
