"""Looking into networks: layers by name, what an output depends on, and how far such answers can be trusted.

All are functions of a function of inputs, `f(x [N, ...]) -> outputs [N, K]`, whatever computes it: a classifier's logits, the
values of actions, a discriminator. Networks are left as they are.
"""
