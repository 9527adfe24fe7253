# SPDX-License-Identifier: MIT
"""https://github.com/pydantic/pydantic/issues/8397: of each validator with a list of itself something stays."""
import gc

from pydantic import BaseModel, TypeAdapter

WARM = 20


class Bar(BaseModel):
    pass


class Foo(BaseModel):
    children: list["Foo"]
    bar: Bar


def keep(step):
    adapter = TypeAdapter(list[Foo])  # leak
    count = len(adapter.validate_python([{"children": [], "bar": Bar()}]))
    # What is in cycles goes now, and not at another moment in each run.
    del adapter
    gc.collect()
    return None, count


def busy(step):
    return Foo(children=[], bar=Bar()).model_dump_json() + str(step)
