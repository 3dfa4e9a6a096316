"""The scores of `evaluate` as lines of text. What they mean is evaluate.py's."""

from typing import Any


def format_table(result: dict[str, Any]) -> str:
    """The scores as lines of text."""
    lines = [f"{result['pictures']} pictures at {result['size']} px{', rect' * result.get('rect', False)}"]
    keys = ("AP", "AP50", "AP75", "AR100")
    if "boxes" in result:
        boxes = result["boxes"]
        rows = [(f"all {boxes['classes']} classes", boxes)]
        rows += [(f"{name} ({entry['classes']})", entry) for name, entry in boxes.get("groups", {}).items()]
        rows += [("whatever the class", boxes["any_class"])]
        width = max(len(name) for name, _ in rows)
        lines.append(f"{'':{width}}  " + "".join(f"{key:>8}" for key in keys) + "   95% of AP50")
        for name, entry in rows:
            interval = entry.get("AP50_interval")
            shown = f"   {interval[0]:.3f}..{interval[1]:.3f}" if interval else ""
            lines.append(f"{name:{width}}  " + "".join(f"{entry[key]:8.3f}" for key in keys) + shown)
        if "nodes" in boxes and len(boxes["nodes"]["levels"]) > 1:  # of a flat list: the same once more
            lines += _node_lines(boxes["nodes"], bool(boxes.get("partial")))
        if boxes.get("partial"):
            lines.append(
                f"{boxes['partial']} pictures were annotated for some classes only: nothing else counts there"
            )
        if boxes["unknown"]:
            lines.append(f"{len(boxes['unknown'])} classes are not in the model's tree and count as 0")
    if strange := result.get("raised", 0) + result.get("left_out", 0):
        lines.append(
            f"{strange} boxes and labels are of nodes that the model's tree has not: along the tree "
            f"{result['raised']} count as the nearest node above, {result['left_out']} are left out"
        )
    if "labels" in result:
        labels = result["labels"]
        titles = {
            "greedy": "descent to the bottom passes through the truth",
            "answer": "answer is the truth or above it",
            "answer_depth": "mean depth of those answers",
            "boxed": "a box above the threshold",
            "top1": "top-1",
            "top5": "top-5",
        }
        lines.append(f"{labels['pictures']} labelled pictures")
        if labels.get("unasked"):
            lines.append(f"  {labels['unasked']} of the answers nobody looked for: they count neither way")
        for key, title in titles.items():
            if key in labels:
                interval = labels.get(f"{key}_interval")
                shown = f"   {interval[0]:.3f}..{interval[1]:.3f}" if interval else ""
                value = "       -" if labels[key] is None else f"{labels[key]:8.3f}"
                lines.append(f"  {title:48}{value}{shown}")
        lines += _answer_lines(labels["hierarchy"])
    return "\n".join(lines)


def _node_lines(nodes: dict[str, Any], partial: bool) -> list[str]:
    rows = [(f"every node above the truth too ({nodes['nodes']})", nodes)]
    rows += [(f"the lowest of these ({nodes['leaves']['nodes']})", nodes["leaves"])]
    rows += [(f"depth {level['depth']} ({level['nodes']})", level) for level in nodes["levels"]]
    width = max(len(name) for name, _ in rows)
    keys = ("AP", "AP50", "AP75", "AR100")
    lines = ["along the tree, nothing counted that was not looked for:" if partial else "along the tree:"]
    for name, entry in rows:
        values = ("       -" if entry[key] is None else f"{entry[key]:8.3f}" for key in keys)
        lines.append(f"  {name:{width}}" + "".join(values))
    return lines


def _answer_lines(scores: dict[str, Any]) -> list[str]:
    titles = {
        "precision": "hierarchical precision",
        "recall": "hierarchical recall",
        "F": "hierarchical F",
        "information": "bits told by right answers",
        "lca_depth": "depth of the lowest common ancestor",
        "lca_height": "its height",
    }
    lines = [f"  along the tree, {scores['answers']} answers:"]
    lines += [f"    {title:46}{scores[k]:8.3f}" for k, title in titles.items() if scores[k] is not None]
    for level in scores["levels"]:
        title = f"right at depth {level['depth']}, of {level['truths']} truths as deep"
        lines.append(f"    {title:46}{level['right']:8.3f}")
    return lines
