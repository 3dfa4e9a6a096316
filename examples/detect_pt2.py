"""Detect with PyTorch, without yolo9000: python detect_pt2.py yolo9000.pt2 photo.jpg ..."""

import json
import sys

import numpy as np
import torch
from PIL import Image, ImageOps

files = sys.argv[2:] or sys.exit(__doc__)
extra = {"yolo9000": ""}  # torch fills it
module = torch.export.load(sys.argv[1], extra_files=extra).module()
about = json.loads(extra["yolo9000"])
tree, paths, (wide, high) = about["tree"], {-1: []}, about["size"]
for node, parent in enumerate(tree["parents"]):  # parents come before their children
    paths[node] = [*paths[parent], tree["names"][node]]
for file in files:
    photo = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    W, H = photo.size
    w, h = min(wide, max(1, W * high // H)), min(high, max(1, H * wide // W))  # as large as it fits
    small = photo.resize((w, h), Image.BILINEAR) if about["letterbox"]["resize"] == "smooth" else photo
    pixels = torch.tensor(np.asarray(small, np.float32)).permute(2, 0, 1)[None] / 255  # in 0..1
    scaled = torch.nn.functional.interpolate(pixels, (h, w), mode="bilinear", align_corners=True)  # Darknet's
    images = torch.full((1, 3, high, wide), about["letterbox"]["grey"])
    images[:, :, (high - h) // 2 :, (wide - w) // 2 :][..., :h, :w] = scaled
    with torch.inference_mode():
        outputs = module(images, torch.tensor([photo.size]))
    for box, score, node in zip(*(output.tolist() for output in outputs[:3]), strict=True):
        found = {"source": file, "name": paths[node][-1], "id": tree["ids"][node], "path_names": paths[node]}
        print(json.dumps({**found, "score": round(score, 5), "box_xyxy": [round(v, 2) for v in box]}))
