"""Prompts as people write them: from a text with brackets to what the network is told at each step.

    parse.py         text -> parts of `AND`, with brackets as a tree
    schedule.py      a part -> one text with weights for every step
    chunks.py        a text with weights -> rows of 77 token ids, and a weight for each
    encode.py        rows -> contexts, by the text encoder
    conditioning.py  contexts by step, as the denoiser asks for them

The syntax is that of stable-diffusion-webui (AUTOMATIC1111), under the name "webui":

    (a)  [a]  (a:1.3)         more weight (1.1), less (1 / 1.1), this weight; they multiply
    \\(  \\[  \\:  \\|  \\\\       the character itself
    [from:to:WHEN]            `from` in the first WHEN steps, then `to`; also [to:WHEN] and
                              [from::WHEN]. WHEN is a step (16), or with a point a share (0.25)
    [a|b]                     a and b in turn, step by step; an option may be empty
    a AND b:0.7               the sum of both guidances with their weights (arXiv:2206.01714)
    a BREAK b                 b begins in the next 75 tokens

Where that program is lenient and this is not: a bracket that is not closed or closes nothing, a
weight such as 1.2.3, more than two texts before WHEN, WHEN after `|`, a negative WHEN, AND inside
brackets or in a negative prompt are refused; there they become plain text, or the whole prompt
loses its schedule. Where both are lenient: a colon that no number follows is a colon ([a:b] is less
weight for "a:b"), `|` outside of square brackets is itself, a backslash before any character only
goes away, WHEN beyond the last step never comes. Where this is more exact: BREAK works inside
brackets, \\BREAK and \\AND are words, WHEN counts sampling steps from 1 with every sampler (there
evaluations, from 0, so that the first text lasts one longer).
"""

from .parse import PLAIN, SYNTAXES, WEBUI, PromptError, check_prompt, check_syntax

__all__ = ["PLAIN", "SYNTAXES", "WEBUI", "PromptError", "check_prompt", "check_syntax"]
