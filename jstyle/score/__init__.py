"""How good are the pictures of a contest's submission? The six metrics and the total.

Everything is computed with NumPy, Pillow and Jittor. Nothing here imports Jittor before a network
is needed.
"""
