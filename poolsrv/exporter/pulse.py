"""Whether the supervisor is at work, asked when somebody wants to know.

Its loop has an eventfd that workers ring when a thread comes free, and that it
empties in each round. The exporter rings it too and looks whether it is
emptied: so an idle supervisor need not wake up to say that it lives, and one
that is stopped, or hangs in Python, does not look alive.
"""

import asyncio
import os
import select

# A probe of Kubernetes waits one second.
PATIENCE = 0.7


async def beats(bell: int, patience: float = PATIENCE) -> bool:
    """Whether the owner of the eventfd `bell` empties it within `patience` seconds."""
    os.eventfd_write(bell, 1)
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    pause = 0.001
    while poll.poll(0):
        if patience <= 0:
            return False
        await asyncio.sleep(pause)
        patience -= pause
        pause = min(2 * pause, 0.02)
    return True
