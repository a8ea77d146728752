"""Which values are compressed already, by how they begin.

Owns the list. Nothing is opened: a value that only looks so is left as it is, which costs room and no more; one that
is not recognised is tried, and found not to pay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

_BEGINNINGS: Final = (
    *(rb"\x1f\x8b\x08", rb"\x1f[\x9d\xa0]"),  # gzip, compress
    *(rb"\x28\xb5\x2f\xfd", rb"[\x50-\x5f]\x2a\x4d\x18"),  # zstd, its skippable frames (and those of LZ4)
    *(rb"\x04\x22\x4d\x18", rb"\x02\x21\x4c\x18"),  # LZ4 frame, LZ4 legacy frame
    rb"\x78[\x01\x9c\xda]",  # zlib; its fourth beginning, "x^", may be text
    *(rb"BZh[1-9]", rb"\xfd7zXZ\x00", rb"7z\xbc\xaf\x27\x1c", rb"LZIP", rb"\x89LZO", rb"Rar!\x1a\x07"),
    *(rb"PK\x03\x04", rb"PK[\x05\x07][\x06\x08]"),  # zip, and what is one inside: docx, xlsx, jar, apk
    rb"\xff\x06\x00\x00sNaPpY",  # snappy, framed
    *(rb"\x89PNG\r\n\x1a\n", rb"\xff\xd8\xff", rb"GIF8[79]a", rb"RIFF....WEBP", rb"\xff\x0a", rb"\0\0\0\x0cJXL "),
    rb"....ftyp",  # mp4, mov, m4a, heic, avif
    *(rb"\x1a\x45\xdf\xa3", rb"OggS", rb"fLaC", rb"ID3[\x02-\x04]", rb"\xff[\xfb\xf3\xf2][^\xff]"),  # webm, sound
    *(rb"wOF[F2]", rb"PAR1"),  # web fonts, parquet
)

is_compressed: Final[Callable[[bytes], Any]] = re.compile(b"|".join(_BEGINNINGS), re.DOTALL).match
"""Return something true for a value that begins as a compressed format does."""
