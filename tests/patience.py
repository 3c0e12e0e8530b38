"""How long a test waits for what must happen before it fails."""

PATIENCE = 900.0  # seconds: reached only where something hangs, also on a machine that is busy with much else
