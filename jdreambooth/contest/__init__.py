"""A whole contest: every style trained and painted, checked, packed. Formats: jstyle.score.layout.

OUT/contest.json                what was asked for: contest, configuration, model
OUT/prior/KEY/                  class pictures, shared by all styles that ask for the same ones
OUT/styles/SS/train/            a run as `jdreambooth train` leaves it: metrics.jsonl, step-000250/
OUT/styles/SS/pick/             pick.json, grid.png and the pictures that were measured
OUT/styles/SS/generate/         PROMPT.png
OUT/styles/SS/refine/           PROMPT.png, from those of generate
OUT/styles/SS/choose/           PROMPT.png of several candidates, and choice.json: why that one
OUT/result/SS/PROMPT.png        the submission: the pictures of the last stage

Every folder of a stage has a stage.json: the inputs it was made from, the hashes of its outputs and
what it took (manifest.py). A stage whose inputs and outputs are as recorded is not done again.
"""
