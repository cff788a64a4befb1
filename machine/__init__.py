"""The machine a run is made on: its device and threads, chance that comes from the seed alone, files.

Imported before torch by every package of ours that needs torch: OpenMP reads how its threads wait when it is loaded.
Spinning threads fight for the cores with whatever else runs; sleeping ones cost nothing alone and change no result.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
