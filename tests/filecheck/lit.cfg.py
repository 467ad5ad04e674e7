"""lit: an .mlir file says in its RUN lines what is run on it, and in CHECK lines what must come."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

formats: Any = import_module("lit.formats")  # lit ships no types
config: Any = globals()["config"]
config.name = "gemmir"
config.test_format = formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.test_source_root = str(Path(__file__).parent)
config.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
