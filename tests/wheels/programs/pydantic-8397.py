# SPDX-License-Identifier: MIT
"""https://github.com/pydantic/pydantic/issues/8397: of each validator with a list of itself something stays."""
from pydantic import BaseModel, TypeAdapter

WARM = 20


class Bar(BaseModel):
    pass


class Foo(BaseModel):
    children: list["Foo"]
    bar: Bar


def keep(step):
    adapter = TypeAdapter(list[Foo])  # leak
    return None, len(adapter.validate_python([{"children": [], "bar": Bar()}]))


def busy(step):
    return Foo(children=[], bar=Bar()).model_dump_json() + str(step)
