"""Loss and accuracy over a run, as a picture."""
import json


def draw_curves(log_path, picture_path, title):
    """Reads log.jsonl and writes a PNG; without matplotlib nothing is written."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot
    entries = [json.loads(line) for line in open(log_path)]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), dpi=90)
    left.plot([e["regions"] for e in entries], [e["loss"] for e in entries], linewidth=1)
    left.set(title=f"{title}: loss", xlabel="regions seen", yscale="log")
    held_out = [e for e in entries if "held_out" in e]
    names = sorted({name for e in held_out for name in e["held_out"]})
    for i, name in enumerate(names):
        points = [(e["regions"], e["held_out"][name]) for e in held_out if name in e["held_out"]]
        right.plot(*zip(*points), linewidth=1, marker=".", label=name, linestyle="--" if i >= 10 else "-")
    right.set(title="answers right, scenes not trained on", xlabel="regions seen", ylim=(0, 1.01))
    if names:
        right.legend(fontsize=7, ncol=2, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture_path)
    pyplot.close(figure)
