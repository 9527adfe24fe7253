# SPDX-License-Identifier: MIT
"""Validators of Rust, kept: what a service does that makes models while it runs."""
import pydantic_core

KEPT = []
SCHEMA = {"type": "typed-dict", "fields": {
    "field_%d" % i: {"type": "typed-dict-field", "schema": {"type": "list", "items_schema": {"type": "int"}}}
    for i in range(30)}}
GOOD = pydantic_core.SchemaValidator(SCHEMA)


def keep(step):
    KEPT.append(pydantic_core.SchemaValidator(SCHEMA))  # leak
    return None, KEPT[-1].validate_python({"field_%d" % i: [step] for i in range(30)})


def busy(step):
    return GOOD.validate_json('{%s}' % ",".join('"field_%d": [%d, 2]' % (i, step) for i in range(30)))
