"""Writes the seeds of the fuzz targets beside this file. Run: python make.py (no packages needed)."""

import json
import struct
from pathlib import Path

HERE = Path(__file__).parent


def put(target, name, data):
    (HERE / target / name).write_bytes(data)


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def llama2c(*sizes, floats):
    return struct.pack("<7i", *sizes) + bytes(4 * floats)


two = {"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 2], 0, 16), "b": entry("BF16", [3], 16, 22)}
put("safetensors_header", "two", safetensors(two, bytes(22)))
put("safetensors_header", "scalar_and_empty", safetensors({"s": entry("F16", [], 0, 2), "e": entry("F32", [0, 5], 2, 2)}, bytes(2)))
put("safetensors_header", "escaped_name", safetensors(b'{"\\u0061\\n":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"x"))
put("safetensors_header", "twice", safetensors(b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[0],"data_offsets":[1,1]}}', b"x"))
put("safetensors_header", "long_list", safetensors({"a": entry("F32", [0] * 2000, 0, 0)}))
put("safetensors_header", "deep", safetensors(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"))
put("safetensors_header", "huge_length", struct.pack("<Q", 2**64 - 1) + b"{}")
put("safetensors_header", "huge_shape", safetensors({"a": entry("F64", [2**62, 2**62], 0, 8)}, bytes(8)))
put("safetensors_header", "many_empty", safetensors({f"{i:x}": entry("U8", [0], 0, 0) for i in range(300)}))
put("safetensors_index", "two", json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": "s1.safetensors", "b": "s2.safetensors"}}).encode())
put("safetensors_index", "outside", b'{"weight_map":{"a":"../x"}}')
put("safetensors_index", "many", json.dumps({"weight_map": {f"{i:x}": "s" for i in range(300)}}).encode())
put("safetensors_index", "wrong", b'{"weight_map":{"a":["s"]}}')
put("llama2c_header", "tied", llama2c(4, 3, 2, 2, 1, 5, 6, floats=220))
put("llama2c_header", "own_head", llama2c(4, 3, 2, 2, 1, -5, 6, floats=240))
put("llama2c_header", "huge", llama2c(*[2**31 - 1] * 7, floats=1))
put("llama2c_header", "smallest", llama2c(2, 1, 1, 1, 1, 1, 1, floats=32))
put("llama2c_header", "short", struct.pack("<5i", 4, 3, 2, 2, 1))
