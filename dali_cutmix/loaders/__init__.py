"""Loaders: DALI pipelines as iterables of torch tensors."""
