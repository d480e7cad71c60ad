"""Scores histories with exported students, as a program that knows nothing of anyo would.

stdin: a list of {"folder": ..., "histories": [[item, ...], ...]}; stdout: for each {"program": ..., "single": ..., "wide": ...,
"arrays": ...}, lists of score rows made in different ways. Needs torch and nothing else of this repository.
"""

import array
import hashlib
import json
import pathlib
import struct
import sys

import torch

torch.set_num_threads(1)


def inputs(rows, width, pad):
    """Right-padded ids [B, width] and lengths [B]."""
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    for row, items in zip(ids, rows):
        row[: len(items)] = torch.tensor(items, dtype=torch.int64)
    return ids, torch.tensor([len(items) for items in rows], dtype=torch.int64)


def flat(path, *shape):
    numbers = array.array("f")
    numbers.frombytes(path.read_bytes())
    if sys.byteorder == "big":
        numbers.byteswap()
    return torch.tensor(numbers).view(*shape)


def tensor_names(path):
    """Names and shapes in a safetensors file, read by hand."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return {name: info["shape"] for name, info in header.items() if name != "__metadata__"}


def answer(asked):
    folder, rows = pathlib.Path(asked["folder"]), asked["histories"]
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, info in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert len(data) == info["bytes"] and hashlib.sha256(data).hexdigest() == info["sha256"], name
    assert sorted(p.name for p in folder.iterdir()) == sorted([*manifest["files"], "manifest.json"])
    items = json.loads((folder / "item_ids.json").read_text())
    n_items, d = manifest["items"]["shape"]
    assert len(items) == n_items and all(set(item) == {"id", "title"} for item in items)
    assert tensor_names(folder / "student.safetensors") == manifest["weights"]

    pad = manifest["input"]["pad_id"]
    width = max([1, *(len(row) for row in rows)])
    program = torch.jit.load(str(folder / "student.pt"))
    encoder = torch.jit.load(str(folder / "encoder.pt"))
    with torch.no_grad():
        ids, lengths = inputs(rows, width, pad)
        scores = program(ids, lengths)
        assert scores.dtype == torch.float32 and scores.shape == (len(rows), n_items)
        again = program(ids, lengths)  # the executor optimises after the first calls
        again = program(ids, lengths)
        assert torch.allclose(again, scores, rtol=1e-5, atol=1e-6)
        # one row at a time, each with the least width
        single = torch.cat([program(*inputs([row], max(1, len(row)), pad)) for row in rows])
        # wider, with rubbish at the empty places
        wide_ids, _ = inputs(rows, width + manifest["input"]["max_len"] + 5, 0)
        wide = program(wide_ids, lengths)
        state = encoder(ids, lengths)
        assert state.shape == (len(rows), d)
        arrays = state @ flat(folder / "items.bin", n_items, d).T
        if manifest["items"]["bias"]:
            arrays = arrays + flat(folder / "item_bias.bin", n_items)
        value = manifest["output"]["added_to_seen"]
        if value is not None:
            for row, items in zip(arrays, rows):
                row[list(set(items))] += value
        # lengths out of range are brought into range
        zeros = torch.zeros_like(ids[:2])
        odd = program(zeros, torch.tensor([-3, width + 9]))
        assert torch.equal(odd, program(zeros, torch.tensor([0, width])))
    result = {"program": scores, "single": single, "wide": wide, "arrays": arrays}
    return {name: rows.tolist() for name, rows in result.items()}


json.dump([answer(asked) for asked in json.load(sys.stdin)], sys.stdout)
