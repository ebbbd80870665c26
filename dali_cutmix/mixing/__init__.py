"""Mixing as a graph of native DALI operators: pair, plan, follow."""
