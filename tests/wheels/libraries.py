# SPDX-License-Identifier: MIT
"""The libraries of the suite: what is fetched from the package index, once, for which Python, and what is asked of them.

    name      of the row, and of the folder in the cache
    program   in programs/; the name without its version where it is not said
    python    the minor version that the wheels are for
    packages  what pip is asked for
    steps     of each phase
    pooled    its allocator is linked in: the growth must be named, and need not be on the line
    threads   its own threads allocate: the growth must be on rows that name the thread and what it runs
    low, high what may be seen, over the truth
"""
import collections

Library = collections.namedtuple("Library", "name program python packages steps pooled threads low high large")


def library(name, packages=None, program=None, python="3.12", steps=100, pooled=False, threads=False, low=.98, high=1.10,
            large=False):
    return Library(name, program or name, python, packages or [name], steps, pooled, threads, low, high,
                   large)


LIBRARIES = [
    library("pydantic_core", ["pydantic"], steps=200),
    library("pydantic_core 2.14.5", ["pydantic==2.5.2"], "pydantic_core", steps=200),
    library("orjson"),
    library("grpcio", steps=60),
    library("hiredis"),
    library("lxml"),
    library("uvloop"),
    library("gevent", steps=200),
    library("greenlet", ["gevent"], steps=200),
    library("multidict", ["multidict", "lz4"], steps=400),
    library("h5py", steps=40),
    library("pycurl"),
    library("numba"),
    library("tokenizers"),
    library("safetensors", ["safetensors", "numpy"]),
    library("pyarrow", ["pyarrow", "numpy"]),
    library("pandas", ["pandas", "pyarrow"]),
    library("polars", pooled=True),
    library("duckdb", pooled=True, steps=60),
    library("opencv", ["opencv-python-headless"]),
    library("scikit-learn"),
    library("lightgbm", steps=40),
    library("onnxruntime", steps=40),
    library("faiss", ["faiss-cpu"]),
    library("spacy"),
    library("jax", steps=1000, threads=True, large=True),
    library("torch 1.12.1", ["torch==1.12.1", "numpy<2"], "torch", "3.10", large=True),
    library("torch", large=True),
    library("tensorflow", large=True),
    # Leaks that were reported, in the versions that had them.
    library("pydantic#8397", ["pydantic==2.5.2"], "pydantic-8397"),
    library("protobuf 4.21.2", ["protobuf==4.21.2"], "protobuf-4.21.2", "3.10", steps=200),
    library("arrow#47702", ["pyarrow==21.0.0", "pandas==2.3.3"], "arrow-47702", steps=20, pooled=True),
    library("greenlet#328", ["greenlet==2.0.0.post0"], "greenlet-328", "3.11", steps=200),
]
