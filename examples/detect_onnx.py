"""Objects on photographs by a file of `yolo9000 export`, run by ONNX Runtime: nothing of yolo9000 is needed.

    python detect_onnx.py yolo9000.onnx photo.jpg ...

Prints a line of JSON an object."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def scaled(pixels, count):
    """Darknet's way to stretch or shrink (n, m, 3) to (count, m, 3): corner pixels' centres stay in place."""
    place = np.arange(count) * ((len(pixels) - 1) / max(1, count - 1))
    before = place.astype(int)
    share = (place - before).astype(np.float32)[:, None, None]
    return pixels[before] * (1 - share) + pixels[np.minimum(before + 1, len(pixels) - 1)] * share


def letterboxed(picture, wide, high, resize, grey):
    """A PIL picture as (1, 3, high, wide) in 0..1, scaled to fit, in the middle of grey."""
    w, h = picture.size
    w, h = (wide, max(1, h * wide // w)) if wide * h < high * w else (max(1, w * high // h), high)
    if resize == "smooth":
        pixels = np.asarray(picture.resize((w, h), Image.Resampling.BILINEAR), np.float32) / 255
    else:
        pixels = scaled(np.asarray(picture, np.float32) / 255, h)
        pixels = scaled(pixels.transpose(1, 0, 2), w).transpose(1, 0, 2)
    image = np.full((1, 3, high, wide), grey, np.float32)
    left, top = (wide - w) // 2, (high - h) // 2
    image[0, :, top : top + h, left : left + w] = pixels.transpose(2, 0, 1)
    return image


if len(sys.argv) < 3:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["yolo9000"])
tree = about["tree"]
for file in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    image = letterboxed(picture, *about["size"], **about["letterbox"])
    inputs = {"images": image, "image_sizes": np.array([picture.size])}
    boxes, scores, nodes = session.run(["boxes_xyxy", "scores", "nodes"], inputs)
    for box, score, node in zip(boxes, scores, nodes, strict=True):
        path = [int(node)]
        while tree["parents"][path[0]] >= 0:
            path.insert(0, tree["parents"][path[0]])
        names = [tree["names"][k] for k in path]
        found = {"source": file, "name": names[-1], "id": tree["ids"][node], "score": round(float(score), 5)}
        print(json.dumps({**found, "box_xyxy": [round(float(v), 2) for v in box], "path_names": names}))
