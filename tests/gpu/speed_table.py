#!/usr/bin/env python3
"""What device_speed --json wrote, as a table for a README: a row for each kernel, a pair of columns for each file.

    tests/gpu/speed_table.py before.jsonl after.jsonl
"""

import json
import pathlib
import sys


def rows_of(path):
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    return {(line["shape"], line["kernel"]): line for line in lines}


def cell(line):
    if line is None:
        return "| | "
    return f"| {line['us']:.1f} | {100 * line['share']:.0f} % of {line['limit']} "


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        files = [(path, rows_of(path)) for path in sys.argv[1:]]
    except (OSError, ValueError, KeyError) as problem:
        sys.exit(f"no lines of device_speed: {problem}")
    heads = [f"{pathlib.Path(path).stem}, {next(iter(rows.values()))['device']}" if rows else path for path, rows in files]
    print("| shape | kernel " + "".join(f"| µs: {head} | share " for head in heads) + "|")
    print("| --- " * (2 + 2 * len(files)) + "|")
    for key in dict.fromkeys(key for _, rows in files for key in rows):
        print(f"| {key[0]} | {key[1]} " + "".join(cell(rows.get(key)) for _, rows in files) + "|")


if __name__ == "__main__":
    main()
