"""How much memory a task will take, derived from the shapes of a model. Needs no Jittor.

tape.py      operations in the order in which they run, and what they hold at most
networks.py  the operations of the UNet, the autoencoder and the text encoder
plan.py      tasks: weights, optimiser and features around them
"""
