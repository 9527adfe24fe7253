# SPDX-License-Identifier: MIT
"""json.dumps and json.loads of a document of 50 records, as the C accelerator and as Python do them."""
import json

DOCUMENT = [{"id": i, "name": "user%d" % i, "tags": ["a%d" % k for k in range(5)], "score": i * 1.25}
            for i in range(50)]
TEXT = json.dumps(DOCUMENT)


def loop(n):
    for _ in range(n):
        json.loads(TEXT)
        json.dumps(DOCUMENT)
        json.dumps(DOCUMENT, indent=1)
