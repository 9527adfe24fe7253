# SPDX-License-Identifier: MIT
"""Documents that were read, kept."""
import orjson

KEPT = []


def keep(step):
    text = b'[%s]' % b",".join(b'{"id": %d, "name": "n%d"}' % (step + i, i) for i in range(200))
    KEPT.append(orjson.loads(text))  # leak
    return None, len(KEPT[-1])


def busy(step):
    return len(orjson.dumps([{"id": i, "text": "x" * (step % 50)} for i in range(200)]))
