"""What a study recorded of single layers, as frames: what compression did to each, and how much each alone bears."""

from __future__ import annotations

import pandas as pd

from analysis.stats.names import ACCURACY
from analysis.stats.summary import Summary
from study.records import paths, study_folder
from study.records.columns import LAYER_COLUMNS, SENSITIVITY_COLUMNS
from study.records.study_folder import Study

NUMBERS = [name for name in LAYER_COLUMNS if name not in ("tensor", "tensor_shape")]


def layers_of(s: Summary) -> tuple[str, pd.DataFrame]:
    """The headline trial, or else the first of the front that has one, and its table of layers; "" and no rows where
    the study recorded none.

    Returns: its id, and one row a parameter: `LAYER_COLUMNS`, `zeros` (%), `bits` a weight in the file (of float32
        where it took no part), `bytes`, and the `share` of all parameters (%).
    """
    chosen = [] if s.best is None else [str(s.best["trial_id"])]
    for trial_id in (*chosen, *s.front["trial_id"]):
        frame = study_folder.read_frame(paths.layers_of(s.study.folder, trial_id), LAYER_COLUMNS)
        frame = frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in NUMBERS})
        frame = frame[frame["weights"] > 0]
        if len(frame):
            return trial_id, _with_ratios(frame)
    return "", pd.DataFrame(columns=[*LAYER_COLUMNS, "zeros", "bits", "bytes", "share"])


def _with_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    taken = frame["compressed"] == 1
    size = frame["coded_bytes"].where(taken, 4 * frame["weights"])
    return frame.assign(
        zeros=(100 * (1 - frame["nonzero"] / frame["weights"])).where(taken),
        bytes=size,
        bits=8 * size / frame["weights"],
        share=100 * frame["weights"] / frame["weights"].sum(),
    )


def left_out_share(layers: pd.DataFrame) -> float:
    """Percentage of all parameters that took no part in compression."""
    return float(layers["share"][layers["compressed"] != 1].sum())


def sensitivity(study: Study) -> tuple[pd.DataFrame, float]:
    """One row a layer and percentage of its weights that was kept, with `val_accuracy` (%); and the accuracy of the
    network itself. Without rows where the study did not measure it."""
    frame = study_folder.read_frame(study.folder / paths.SENSITIVITY, SENSITIVITY_COLUMNS)
    remaining = pd.to_numeric(frame["remaining"], errors="coerce")
    frame = frame.assign(remaining=remaining)[(remaining > 0) & frame[ACCURACY].notna()]
    whole = frame[frame["tensor"] == ""][ACCURACY]
    return frame[frame["tensor"] != ""], float(whole.iloc[0]) if len(whole) else float("nan")
