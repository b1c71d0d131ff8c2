"""Scenes of the shapes world, as `stream.lua` draws them: the same pixels, masks and questions that the library sees."""
import fcntl
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STREAM = Path(__file__).resolve().parent.parent / "stream.lua"
F_SETPIPE_SZ = 1031  # Linux: lets the drawing run ahead by some pictures


@dataclass
class Scene:
    index: int
    objects: list  # of {"shape", "colour", "size", "filling", "direction", "speed", "later_colour"}
    questions: list  # of {"kind", "question", "answer", "regions": objects' numbers from 1}
    pictures: np.ndarray  # uint8 [frames,h,w,3]
    ids: np.ndarray  # uint8 [frames,h,w]: which object each pixel shows, 0 the background

    def mask(self, number, frame=0):
        """The visible mask of an object, counted from 1."""
        return (self.ids[frame] == number).astype(np.uint8)


class Stream:
    """An endless row of scenes, from scene `first` on; `next_index` is where to go on another time."""

    def __init__(self, seed, kind, first, rounds):
        self.next_index = first
        self.process = subprocess.Popen(
            ["luajit", str(STREAM), str(seed), kind, str(first), str(2 ** 30), str(rounds)], stdout=subprocess.PIPE)
        try:
            fcntl.fcntl(self.process.stdout.fileno(), F_SETPIPE_SZ, 2 ** 20)
        except OSError:
            pass  # a small pipe is slower, not wrong

    def __iter__(self):
        return self

    def __next__(self):
        out = self.process.stdout
        header = out.readline()
        if not header:
            raise RuntimeError(f"{STREAM} ended; exit code {self.process.wait()}")
        record = json.loads(header)
        frames, height, width = record["frames"], record["height"], record["width"]
        pictures = np.frombuffer(out.read(frames * height * width * 3), dtype=np.uint8)
        ids = np.frombuffer(out.read(frames * height * width), dtype=np.uint8)
        self.next_index = record["index"] + 1
        questions = record["questions"] if isinstance(record["questions"], list) else []
        return Scene(record["index"], record["objects"], questions, pictures.reshape(frames, height, width, 3),
                     ids.reshape(frames, height, width))

    def close(self):
        self.process.kill()
        self.process.wait()
