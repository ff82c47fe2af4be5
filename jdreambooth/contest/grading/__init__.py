"""`jdreambooth contest grade`: many submissions, checked, scored and ranked.

submissions.py   a zip or a folder, listed and read without trusting it
inspection.py    its files against the contest: problems, remarks, pictures that can be scored
inspector.py     the process in which that is done, with bounds on memory and time
grade.py         one submission after the other; what is known of each stays on the disk
tables.py        ranks, and the CSV files
"""
