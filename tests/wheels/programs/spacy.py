# SPDX-License-Identifier: MIT
"""Documents, kept."""
import spacy

KEPT = []
LANGUAGE = spacy.blank("en")
TEXT = "The line that leaks is found from outside, while the program runs. " * 20


def keep(step):
    KEPT.append(LANGUAGE(TEXT))  # leak
    return None, len(KEPT[-1])


def busy(step):
    return len(LANGUAGE(TEXT[:300 + step % 300]))
