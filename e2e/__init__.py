"""User stories on real clusters, and the clusters that they, the demo and the tests run on."""
