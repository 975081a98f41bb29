"""The engines that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aeedge.errors import InputError

if TYPE_CHECKING:
    from aeedge.archive.work import Engine

ENGINES = ("local", "spark", "ray")


def make_engine(
    name: str = "local", *, workers: int | None = None, master: str | None = None, address: str | None = None
) -> Engine:
    """An engine.

    Args:
        name: of ENGINES.
        workers: of local, processes; of Spark and Ray without a cluster, too. None for the CPUs that this process may
            use.
        master: of Spark: the URL of a cluster; None for the session that there is, or one on this machine.
        address: of Ray: that of a cluster, or "auto"; None for one on this machine.

    Raises:
        InputError: another name, an option of another engine, an engine that is not installed.
    """
    for option, value, owner in (("master", master, "spark"), ("address", address, "ray")):
        if value is not None and name != owner:
            raise InputError(f"{option}: is an option of the engine {owner!r}, got it with {name!r}; leave it out")
    if workers is not None and workers < 1:
        raise InputError(f"workers: expected a whole number of at least 1, got {workers!r}")
    if name == "local":
        from aeedge.archive.local import LocalEngine

        return LocalEngine(workers)
    if name == "spark":
        from aeedge.archive.spark import SparkEngine

        return SparkEngine(master, workers)
    if name == "ray":
        from aeedge.archive.ray import RayEngine

        return RayEngine(address, workers)
    raise InputError(f"engine: expected {', '.join(ENGINES)}, got {name!r}")
