"""Attacks on networks: small changes of inputs that change what is said of them, and how many inputs withstand them.

All are functions of a function of inputs, `f(x [N, ...]) -> logits [N, Y]`, and of its labels.
"""
