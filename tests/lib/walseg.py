#!/usr/bin/env python3
"""Makes a file that looks like the WAL segment NAME: right page headers, filled with repeatable data.

    walseg.py NAME SIZE_MIB OUT [SEED]

Equal arguments give equal bytes. About half of the content can be compressed.
"""
import random
import struct
import sys

PAGE = 8192
MAGIC = 0xD110  # PostgreSQL 15
XLP_LONG_HEADER = 0x0002
SYSTEM_ID = 7000000000000000001


def pages(name, size, seed):
    tli, log, seg = (int(name[i:i + 8], 16) for i in (0, 8, 16))
    start = (log * (0x100000000 // size) + seg) * size
    rng = random.Random(f"{name} {seed}")
    noise = rng.randbytes(PAGE // 2)
    for at in range(0, size, PAGE):
        header = struct.pack("<HHIQI4x", MAGIC, XLP_LONG_HEADER if at == 0 else 0, tli,
                             start + at, 0)
        if at == 0:
            header += struct.pack("<QII", SYSTEM_ID, size, PAGE)
        body = rng.randbytes(64) + noise[64:] if at % (4 * PAGE) else rng.randbytes(PAGE // 2)
        yield (header + body).ljust(PAGE, b"\0")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or len(sys.argv[1]) != 24:
        sys.exit(__doc__)
    with open(sys.argv[3], "wb") as f:
        f.writelines(pages(sys.argv[1], int(sys.argv[2]) << 20, sys.argv[4] if sys.argv[4:] else ""))
