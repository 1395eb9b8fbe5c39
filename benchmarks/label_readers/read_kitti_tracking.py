"""Read every sequence's labels with pykitti."""

import json
import sys
from pathlib import Path

from pykitti.tracking import KittiTrackingLabels

found = []
for path in sorted((Path(sys.argv[1]) / "label_02").iterdir()):
    table = KittiTrackingLabels(str(path), split_on_reappear=False)._df
    for frame, row in table.iterrows():
        found.append(
            {
                "clip": path.stem,
                "frame": int(frame),
                "class": row["class"],
                "bottom": [float(row[name]) for name in "xyz"],
                "size_hwl": [float(row[name]) for name in ("xd", "yd", "zd")],
                "turn": float(row["roty"]),
                "alpha": float(row["alpha"]),
            }
        )
print(json.dumps({"boxes": found}))
