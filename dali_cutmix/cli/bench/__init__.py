"""Benchmarks of input pipelines: ``dali-cutmix bench``."""
