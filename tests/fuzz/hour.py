"""Fuzzing with atheris, guided by the lines that are reached: an hour by default, shared among the targets.

    make fuzz
    PYTHONPATH=tests python -m fuzz.hour [SECONDS] [TARGET ...]    # needs atheris

Inputs that reach new lines are kept in .fuzz/TARGET. An input that fails is written to .fuzz/TARGET-crash-…: put it
into corpus/TARGET once it is mended.
"""

import random
import subprocess
import sys
from pathlib import Path

from fuzz.targets import CORPUS, TARGETS, seeds

KEPT = Path(".fuzz")


def fuzz(name, seconds):
    """Runs in a process of its own, which libFuzzer ends."""
    import atheris

    from fuzz.mutation import mutated

    others = seeds(name)

    def mutate(data, most, seed):
        dice = random.Random(seed)
        if dice.random() < 0.3:
            return atheris.Mutate(data, most)
        return mutated(name, bytes(data), dice.choice(others), dice)[:most]

    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(others):
        (folder / f"seed{number}").write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-max_len=20000",
        "-print_final_stats=1",
    ]
    options += [f"-artifact_prefix={folder}-", f"{folder}"]
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *options], TARGETS[name], custom_mutator=mutate)
    atheris.Fuzz()


def main(seconds="3600", *names):
    if names[:1] == ("--one",):
        fuzz(names[1], int(seconds))
        return 0
    chosen = names or tuple(TARGETS)
    share = str(max(1, int(seconds) // len(chosen)))
    failed = []
    for name in chosen:
        print(f"-- {name}, {share} s, from {len(seeds(name))} inputs; regressions in {CORPUS / name}", flush=True)
        if subprocess.run([sys.executable, "-m", "fuzz.hour", share, "--one", name], check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
