# SPDX-License-Identifier: MIT
"""The victims do notice: a tracer that makes the mistake is found out by the victim named after it."""
import subprocess

import pytest

from helpers import BUILD, library, wait_until


@pytest.mark.parametrize("hazard", ["redzone", "tinystack", "registers", "vectors", "sigmask", "blocked"])
def test_victims(host, hazard):
    victim = host("--library", library(hazard), "--threads", 0)
    wait_until(lambda: victim.ask("check")["library"][0] > 0, 10, "the victim's threads work")

    def noticed():
        subprocess.run([str(BUILD / "tests" / "victims" / "tracer"), str(victim.pid), hazard], check=False)
        if not victim.alive():
            return True
        return victim.ask("check")["library"][1]

    # More than one try: a thread may just be where the mistake does no harm.
    assert wait_until(noticed, 10, "the %s victim notices" % hazard)
