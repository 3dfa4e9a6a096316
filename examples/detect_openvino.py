"""Detect with OpenVINO, without yolo9000: python detect_openvino.py yolo9000.xml photo.jpg ..."""

import json
import sys

import numpy as np
import openvino
from PIL import Image, ImageOps

files = sys.argv[2:] or sys.exit(__doc__)
model = openvino.Core().read_model(sys.argv[1])
compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # not bfloat16
about = json.loads(model.get_rt_info("yolo9000").astype(str))
tree, paths, (wide, high) = about["tree"], {-1: []}, about["size"]
for node, parent in enumerate(tree["parents"]):  # parents come before their children
    paths[node] = [*paths[parent], tree["names"][node]]
for file in files:
    photo = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    W, H = photo.size
    w, h = min(wide, max(1, W * high // H)), min(high, max(1, H * wide // W))  # as large as it fits
    small = photo.resize((w, h), Image.BILINEAR) if about["letterbox"]["resize"] == "smooth" else photo
    a, b = (small.width - 1) / max(1, w - 1), (small.height - 1) / max(1, h - 1)  # 1 if it is scaled already
    place = (a, 0, (1 - a) / 2, 0, b, (1 - b) / 2)  # as Darknet scales: the corner pixels stay in the corners
    bands = [c.convert("F").transform((w, h), Image.AFFINE, place, Image.BILINEAR) for c in small.split()]
    images = np.full((1, 3, high, wide), about["letterbox"]["grey"], np.float32)
    images[0, :, (high - h) // 2 :, (wide - w) // 2 :][:, :h, :w] = np.stack(bands) / 255
    outputs = compiled({"images": images, "image_sizes": np.array([photo.size])})
    for box, score, node in zip(*(outputs[k].tolist() for k in range(3)), strict=True):
        found = {"source": file, "name": paths[node][-1], "id": tree["ids"][node], "path_names": paths[node]}
        print(json.dumps({**found, "score": round(score, 5), "box_xyxy": [round(v, 2) for v in box]}))
