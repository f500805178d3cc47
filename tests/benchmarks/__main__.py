"""``./dev bench [NAME]``: each benchmark prints a ratio against the raw tool of the same run."""

import sys

from tests.benchmarks import (
    backups,
    console,
    dsn,
    move,
    pooler,
    provision,
    queries,
    rollout,
    schedules,
    usage,
)

BENCHMARKS = {
    "provision": provision.main,
    "dsn": dsn.main,
    "pooler": pooler.main,
    "rollout": rollout.main,
    "queries": queries.main,
    "backups": backups.main,
    "schedules": schedules.main,
    "move": move.main,
    "console": console.main,
    "usage": usage.main,
}


def main(arguments: list[str]) -> int:
    unknown = [name for name in arguments if name not in BENCHMARKS]
    if unknown:
        sys.stderr.write(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}\n")
        return 2
    for name in arguments or BENCHMARKS:
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
