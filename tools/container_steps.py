"""Execute the steps of a Dockerfile and run its image without Docker, for machines where Docker cannot run.

Each stage is a copy-on-write view (overlayfs) of this machine's file system in a mount namespace of its own; nothing
outside it changes. This machine takes the place of the base image, and its `python3` is the Python that runs this. What
a service of a compose file asks for is done by setpriv and mount: the user, no capabilities, no new privileges, a
read-only root, tmpfs, volumes. Not done are limits of memory and processes, and a network of its own. Needs root, Linux
and util-linux.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATH = f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFINED = {  # keys of a service, the one value that is known here, and how setpriv does it
    "cap_drop": (["ALL"], ["--bounding-set=-all", "--inh-caps=-all"]),
    "security_opt": (["no-new-privileges:true"], ["--no-new-privs"]),
}
ELSEWHERE = ("build", "image", "command")  # done by the caller
NOT_DONE = ("env_file", "mem_limit", "pids_limit", "restart", "stop_grace_period")


@dataclass
class Image:
    """A stage, and in the end the image: its files, and how it is run."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "HOME": "/root"})
    user: str = "0:0"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: str = ""

    def __post_init__(self) -> None:
        for name in ("files", "work", "root"):
            (self.folder / name).mkdir(parents=True)

    @property
    def files(self) -> Path:
        """What the steps have written."""
        return self.folder / "files"

    def enter(
        self,
        command: Sequence[str],
        *,
        confined: Sequence[str] = (),
        mounts: Sequence[str] = (),
        read_only: bool = False,
    ) -> list[str]:
        """A command line for this machine that executes `command` in the image, as its user."""
        root = str(self.folder / "root")
        layers = f"lowerdir=/,upperdir={self.files},workdir={self.folder / 'work'}"
        steps = ["set -e", f"mount -t overlay overlay -o {layers} {root}"]
        steps += [f"mount --rbind /{name} {root}/{name}" for name in ("dev", "proc")]
        steps += [step.format(root=root) for step in mounts]
        steps += [f"mount -o remount,ro {root}"] if read_only else []
        user, group = self.user.split(":")
        identity = [f"--reuid={user}", f"--regid={group}", "--clear-groups", *confined]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        start = ["chroot", root, "setpriv", *identity, "env", "-i", *variables]
        start += ["sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        return ["unshare", "--mount", "sh", "-c", "\n".join([*steps, f"exec {shlex.join(start)}"])]

    def service(self, service: Mapping[str, Any], volumes: Mapping[str, Path], command: Sequence[str]) -> list[str]:
        """A command line that executes `command` as docker compose would for `service`.

        Args:
            service: of a compose file.
            volumes: folders of this machine for the sources of the service's volumes.
            command: with the entrypoint, if it is to be run.

        Raises:
            ValueError: the service asks for something that is not done here.
        """
        known = {"tmpfs", "volumes", "read_only", *CONFINED, *ELSEWHERE, *NOT_DONE}
        if service.keys() - known:
            raise ValueError(f"{', '.join(sorted(service.keys() - known))}: not done here")
        confined = []
        for key, (done, options) in CONFINED.items():
            if service.get(key) != done:
                raise ValueError(f"{key}: only {done} is done here, not {service.get(key)}")
            confined += options
        mounts = []
        for place in service["tmpfs"]:
            mounts += [f"mkdir -p {{root}}{place}", f"mount -t tmpfs -o mode=1777 tmpfs {{root}}{place}"]
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            mounts += [f"mkdir -p {{root}}{target}", f"mount --bind {volumes[source]} {{root}}{target}"]
            mounts += [f"mount -o remount,bind,ro {{root}}{target}"] if mode == ["ro"] else []
        return self.enter(command, confined=confined, mounts=mounts, read_only=service["read_only"])


def build(dockerfile: Path, folder: Path) -> Image:
    """Execute a Dockerfile whose context is its own folder; return the last stage.

    Raises:
        ValueError: an instruction that is not known here.
        subprocess.CalledProcessError: a step failed.
    """
    stages: dict[str, Image] = {}
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines()))):
        word, rest = line.split(maxsplit=1)
        if word in ("ARG", "VOLUME"):  # the one is the base image's, the other the service's
            continue
        if word == "FROM":
            image = stages[rest.split(" AS ")[-1]] = Image(folder / str(number))
            open_up = ["chmod", "o+x", *map(str, Path(sys.base_prefix).parents)]  # another user starts this Python, too
            subprocess.run(image.enter(open_up), check=True)
        elif word == "COPY":
            *options, source, target = rest.split()
            of = [option.removeprefix("--from=") for option in options]
            start = stages[of[0]].files if of else dockerfile.parent
            how = ["--link"] if of else []  # a stage that was left does not change any more
            place = image.files / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", *how, "--no-preserve=ownership", start / source.lstrip("/"), place], check=True)
        elif word == "RUN":
            subprocess.run(image.enter(["sh", "-c", rest]), check=True, stdout=subprocess.DEVNULL)
        elif word == "ENV":
            image.environment |= _variables(rest, image.environment)
        elif word in ("ENTRYPOINT", "CMD"):
            setattr(image, {"ENTRYPOINT": "entrypoint", "CMD": "command"}[word], json.loads(rest))
        elif word == "HEALTHCHECK":
            image.health = rest.split(" CMD ", 1)[1]
        elif word == "USER":
            image.user = rest
        elif word == "WORKDIR":
            image.workdir = rest
        else:
            raise ValueError(f"{dockerfile}: {word} is not executed here")
    return image


def _variables(text: str, before: Mapping[str, str]) -> dict[str, str]:
    """Variables of an ENV line, which may refer to earlier ones."""
    pairs = (part.split("=", 1) for part in shlex.split(text))
    return {name: re.sub(r"\$(\w+)", lambda found: before[found[1]], value) for name, value in pairs}


def unavailable() -> str:
    """Why steps cannot be executed here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it takes root on Linux"
    done = subprocess.run(["unshare", "--mount", "setpriv", "--version"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"unshare and setpriv do not work here: {done.stderr.strip()}"
    return "" if "overlay" in Path("/proc/filesystems").read_text() else "the kernel has no overlayfs"
