# SPDX-License-Identifier: MIT
"""Trees of libxml2, kept."""
from lxml import etree

KEPT = []


def text(step):
    return b"<r>%s</r>" % b"".join(b'<item id="%d">text %d</item>' % (i, step) for i in range(100))


def keep(step):
    document = text(step)
    KEPT.append(etree.fromstring(document))  # leak
    return None, len(KEPT[-1])


def busy(step):
    return len(etree.tostring(etree.fromstring(text(step))))
