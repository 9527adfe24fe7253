# SPDX-License-Identifier: MIT
"""Terminals to run pyleak in: a real one with a shell (tmux), and a bare pseudo-terminal that nobody reads."""
import os
import pty
import re
import select
import subprocess
import time

from helpers import PATIENCE, wait_until

PROMPT = "ready> "


class Terminal:
    """A shell in a tmux server of its own."""

    def __init__(self, folder, columns=80, lines=24, **environment):
        self.socket = str(folder / "tmux")
        variables = {"LANG": "C.UTF-8", "PS1": PROMPT, **environment}
        env = {key: value for key, value in os.environ.items()
               if not key.startswith("LC_") and key not in ("TMUX", "NO_COLOR", "LANG")}
        self.tmux("new-session", "-d", "-x", columns, "-y", lines,
                  "env", *("%s=%s" % item for item in variables.items()), "bash", "--norc", "--noprofile", env=env)
        self.wait(PROMPT.strip())

    def tmux(self, *arguments, **keywords):
        command = ["tmux", "-u", "-f", "/dev/null", "-S", self.socket, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20 * PATIENCE, **keywords).stdout

    def type(self, text):
        self.tmux("send-keys", "-l", "--", text)

    def press(self, *keys):
        """Names of keys, as tmux has them: Enter, Down, C-c."""
        self.tmux("send-keys", *keys)

    def command(self, *words):
        self.type(" ".join(map(str, words)))
        self.press("Enter")

    def screen(self, *options):
        return self.tmux("capture-pane", "-p", *options)

    def wait(self, text, seconds=15):
        """Until a text, or what a function makes of the screen, is there; returns the screen."""
        wanted = text if callable(text) else lambda screen: text in screen
        last = [""]

        def there():
            last[0] = self.screen()
            return wanted(last[0])
        try:
            wait_until(there, seconds, "on the screen: %s" % text)
        except AssertionError as error:
            raise AssertionError("%s\n%s" % (error, last[0])) from None
        return last[0]

    def resize(self, columns, lines):
        self.tmux("resize-window", "-x", columns, "-y", lines)

    def modes(self):
        """What full-screen programs change, and must give back: of the terminal, and of its line discipline."""
        flags = self.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{keypad_cursor_flag} #{keypad_flag}")
        return flags + subprocess.run(["stty", "-a", "-F", self.tmux("display-message", "-p", "#{pane_tty}").strip()],
                                      check=True, capture_output=True, text=True).stdout

    def status(self):
        """The exit status of the last command."""
        self.command("echo status=$?.")
        screen = self.wait(lambda text: re.search(r"status=\d+\.", text))
        return int(re.findall(r"status=(\d+)\.", screen)[-1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmux("kill-server")


class Frozen:
    """A program on a pseudo-terminal whose other side is read when the test does so, in a session without a shell."""

    def __init__(self, *command, **environment):
        self.master, slave = pty.openpty()
        subprocess.run(["stty", "cols", "120", "rows", "40"], stdin=slave, check=True)
        self.process = subprocess.Popen(list(map(str, command)), stdin=slave, stdout=slave, stderr=subprocess.PIPE,
                                        env={**os.environ, "TERM": "xterm", **environment}, start_new_session=True)
        os.close(slave)

    def read(self):
        """What it has written."""
        text = b""
        try:
            while select.select([self.master], [], [], 0.1)[0]:
                text += os.read(self.master, 65536)
        except OSError:
            pass  # and the program has ended
        return text

    def read_all(self, seconds=20):
        """Until it ends."""
        deadline, text = time.monotonic() + seconds * PATIENCE, b""
        while self.process.poll() is None:
            text += self.read()
            assert time.monotonic() < deadline, "it does not end: %s" % text
        return text + self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self.master)
