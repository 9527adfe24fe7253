# SPDX-License-Identifier: MIT
"""Encodings, kept."""
import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

KEPT = []
TOKENIZER = Tokenizer(models.WordLevel({"w%d" % i: i for i in range(1000)}, unk_token="w0"))
TOKENIZER.pre_tokenizer = pre_tokenizers.Whitespace()
TEXT = " ".join("w%d" % i for i in range(300))


def keep(step):
    KEPT.append(TOKENIZER.encode(TEXT))  # leak
    return None, KEPT[-1].ids[step % 300]


def busy(step):
    return TOKENIZER.encode(TEXT + " w%d" % (step % 1000)).ids[-1]
