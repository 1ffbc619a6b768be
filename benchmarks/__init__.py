"""One file per question; each compares two things in one run."""
