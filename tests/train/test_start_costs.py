"""What is not looked up at each start, and what stands in its place."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import cpuinfo
from composer.utils import collect_env, get_composer_env_dict

import theworld.train.composer_model  # noqa: F401 - what spares the lookups
from theworld.train.start_costs import cpu_name

READ_NO_FILE_LISTS = """
import importlib.metadata

def refuse():
    raise AssertionError("the file lists of all packages are read")

importlib.metadata.packages_distributions = refuse
from theworld.model.vae_class import vae_class
import sys
assert "diffusers" not in sys.modules
vae_class()
from diffusers.utils import import_utils
assert import_utils._package_map == {}, import_utils._package_map
assert importlib.metadata.packages_distributions is refuse
"""


def test_the_vae_is_imported_without_reading_what_all_packages_are_made_of() -> None:
    subprocess.run([sys.executable, "-c", READ_NO_FILE_LISTS], check=True)
    assert importlib.metadata.packages_distributions()


def test_checkpoints_name_the_processor_as_py_cpuinfo_does() -> None:
    name = cpuinfo.get_cpu_info().get("brand_raw", "CPU")
    assert cpu_name() == name
    assert collect_env.get_cpu_model is cpu_name
    assert get_composer_env_dict()["cpu_model"] == name


NO_COMPILERS = """
import psutil
from theworld import cli

def main(argv):
    import torch._inductor.async_compile
    assert not psutil.Process().children(), [child.cmdline() for child in psutil.Process().children()]
    return 0

raise SystemExit(cli.run(main, []))
"""


def test_a_command_starts_no_compilers_before_something_is_compiled() -> None:
    """With the extra qlora, Composer imports peft, and that bitsandbytes, and that the compiler: in each rank."""
    subprocess.run([sys.executable, "-c", NO_COMPILERS], check=True)
