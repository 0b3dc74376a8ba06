"""The only place for entities, paths, sidecars and images."""
