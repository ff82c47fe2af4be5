"""What the command lines of this project share: options, errors in one line, exit codes, words.

Only programs use this folder; a library that imports jstyle or jstyle.sd does not load it.
"""
