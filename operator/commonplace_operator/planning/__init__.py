"""What has to be done, decided from plain values. Pure."""
