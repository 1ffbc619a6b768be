"""What controller-runtime gives a Go operator; knows no kind of ours."""
