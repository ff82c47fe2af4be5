"""Sheets of pictures over the values of up to three options: `jstyle grid`.

axes.py    what the words after --x, --y and --z mean
request.py what else is asked, and which words do not go together
run.py     the saved counts of a training run
loras.py   which LoRAs each cell has
cells.py   every combination: what it is painted with, its key, or why it cannot be
paint.py   the combinations that are not painted yet, with the model loaded once
sheet.py   all of them as one labelled picture
page.py    and as one HTML page
record.py  what the sheet says about itself
"""
