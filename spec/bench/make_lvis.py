"""Writes a file of LVIS's size and form: usage: make_lvis.py OUT [IMAGES] [ANNOTATIONS] (100170 and 1300000 unless said)."""

import random
import sys

out = sys.argv[1]
images = int(sys.argv[2]) if len(sys.argv) > 2 else 100170
annotations = int(sys.argv[3]) if len(sys.argv) > 3 else 1300000
rng = random.Random(1)
with open(out, "w") as f:
    f.write('{"info": {"version": "v1"}, "annotations": [')
    for i in range(annotations):
        x, y = rng.uniform(0, 400), rng.uniform(0, 300)
        points = ", ".join(
            f"{x + rng.uniform(0, 200):.2f}, {y + rng.uniform(0, 150):.2f}" for _ in range(int(rng.expovariate(1 / 45)) + 3)
        )
        f.write(
            f'{", " if i else ""}{{"bbox": [{x:.2f}, {y:.2f}, 200.0, 150.0], "category_id": {rng.randint(1, 1203)}, '
            f'"image_id": {rng.randint(1, images)}, "id": {i + 1}, "segmentation": [[{points}]], "area": 1234.56}}'
        )
    f.write('], "categories": [')
    f.write(", ".join(f'{{"id": {c}, "name": "thing {c}", "synonyms": [], "frequency": "f"}}' for c in range(1, 1204)))
    f.write('], "images": [')
    f.write(
        ", ".join(
            f'{{"id": {i}, "license": 4, "height": 480, "width": 640, "neg_category_ids": [1, 2], "not_exhaustive_category_ids": [],'
            f' "coco_url": "http://images.cocodataset.org/train2017/{i:012d}.jpg", "flickr_url": "", "date_captured": ""}}'
            for i in range(1, images + 1)
        )
    )
    f.write("]}\n")
