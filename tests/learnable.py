"""Small folders to learn from: pictures whose labels and masks a network can see."""

import csv

import numpy as np
from PIL import Image, ImageDraw


def write_xrays(folder, n=24, side=16):
    """Grey noise; ``Effusion`` adds lying stripes, ``Mass`` standing ones; two pictures a patient."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(n):
        pixels = generator.normal(90, 12, (side, side))
        labels = []
        if number // 2 % 2:
            pixels[::4] += 60
            labels.append("Effusion")
        if number // 4 % 2:
            pixels[:, ::4] += 60
            labels.append("Mass")
        name = f"{number}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
        rows.append({"path": name, "patient_id": number // 2, "labels": "|".join(labels) or "No Finding"})
    _write_table(folder, rows)
    return folder


def write_lesions(folder, n=20, size=(32, 24)):
    """Dark ellipses on bright skin, their masks, and two photographs a lesion."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(n):
        left, top = generator.integers(2, 8, 2).tolist()
        box = (left, top, left + 14 + number % 3, top + 12)
        photograph = Image.fromarray(generator.normal(200, 8, (size[1], size[0], 3)).astype(np.uint8))
        ImageDraw.Draw(photograph).ellipse(box, fill=(90, 60, 50) if number % 2 else (130, 60, 90))
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        photograph.save(folder / f"{number}.png")
        mask.save(folder / f"{number}_mask.png")
        rows.append(
            {
                "path": f"{number}.png",
                "mask": f"{number}_mask.png",
                "lesion_id": number // 2,
                "label": "nv" if number % 2 else "mel",
            }
        )
    _write_table(folder, rows)
    return folder


def _write_table(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
