"""What the commands of `jstyle` do. Only jstyle/cli.py reads words and prints; here are the works.

Nothing here imports Jittor before the inputs, the output folder and the model's files are checked.
"""
