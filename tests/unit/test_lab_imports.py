from __future__ import annotations

import subprocess
import sys


def test_a_sender_in_a_small_guest_loads_neither_ssh_nor_the_manager():
    program = "import sys, lab.__main__; print(sorted({'asyncssh', 'rich', 'relaymgr'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
