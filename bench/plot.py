"""Draw what ``reruns.py --json FILE`` measured.

    .cache/bench-peers/bin/python bench/plot.py FILE PICTURE...

The ending of a picture's name says its format: svg, png.
"""

import json
import statistics
import sys
from pathlib import Path

from matplotlib import pyplot

OURS, OTHERS, FLOOR = "#2f6f4f", "#9aa5ab", "#d08a2e"


def main() -> None:
    source, *pictures = sys.argv[1:]
    found = json.loads(Path(source).read_text("utf-8"))["again"]
    fields = {f"{n} box{'es' * (n != '1')}": times for n, times in found.items()}
    pyplot.rcParams.update({"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "roost"})
    figure, axes = pyplot.subplots(1, len(fields), figsize=(4 * len(fields), 3), sharey=True)
    for place, (title, times) in zip(
        axes if len(fields) > 1 else [axes], fields.items(), strict=True
    ):
        names = [name for name in times if times[name]["seconds"]][::-1]
        medians = [statistics.median(times[name]["seconds"]) for name in names]
        colors = [
            OURS if n.startswith("roost") else FLOOR if n.startswith("ssh") else OTHERS
            for n in names
        ]
        bars = place.barh(names, medians, color=colors)
        place.bar_label(bars, [f"{m:.2g} s" if m < 1 else f"{m:.1f} s" for m in medians], padding=3)
        place.set_xscale("log")
        place.set_xlim(min(medians) / 2, max(medians) * 6)
        place.set_title(title)
        place.spines[["top", "right"]].set_visible(False)
        place.set_xlabel("seconds, logarithmic")
    figure.tight_layout()
    for picture in pictures:
        figure.savefig(picture, dpi=150, metadata={"Date": None} if picture.endswith("svg") else {})


if __name__ == "__main__":
    main()
