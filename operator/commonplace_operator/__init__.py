"""Commonplace's Kubernetes operator."""
