"""The networks behind the metrics, in Jittor, under the names of their published files."""
