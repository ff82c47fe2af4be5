"""The plan of a style in words."""

from __future__ import annotations

from pathlib import Path

from jdreambooth.contest.chosen import plan_of
from jdreambooth.contest.config import make_config

VALUES = {
    "size_px": 64,
    "defaults": {
        "train": {"steps": 30, "save_at": "20", "class_prompt": "a picture"},
        "pick": True,
        "generate": {"candidates": 3, "guidance": 4.0},
        "prompts": {"Ring": {"seed": 2, "method": "styleid"}},
        "words": {"Ring": "gold ring"},
    },
}


def test_every_section_is_told_and_pick_says_why():
    options = make_config(VALUES, "contest.yaml", Path()).style("05")
    picked = {"used": 20, "step": 20, "note": "more may be better", "collapsed": {"30": ["x"]}}
    plan = plan_of(options, picked)
    assert "steps 30" in plan["train"][0] and "class_prompt a picture" in plan["train"][0]
    assert "learning_rate" not in plan["train"][0]
    assert "candidates 3" in plan["generate"][0] and "guidance 4" in plan["generate"][0]
    assert plan["prompts"][0] == "Ring: seed 2, method styleid"
    assert plan["words"][0] == "Ring: gold ring" and plan["size_px"][0] == "64"
    assert plan["refine"] == ("left out", "")
    why = plan["pick"][1]
    assert why.startswith("20 steps: ") and "1 had collapsed" in why and "more may" in why
    gone = plan_of(options, {**picked, "step": None})["pick"][1]
    assert "all counts have collapsed, this one least" in gone
