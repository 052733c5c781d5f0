"""What a JPEG or JPEG 2000 codestream says of itself, read before it is decoded.

Decoders take memory for the shape it states, whatever Rows and Columns say, and fill in silence what is missing at
its end. Markers: ITU-T T.81 B.1 (JPEG), T.87 C (JPEG-LS), T.800 A.2 (JPEG 2000).
"""

from fl_rsna.imaging.rejections import Reason, Rejected

JPEG, JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"  # how they begin
END = b"\xff\xd9"
PADDING = 16  # bytes after the end marker that writers were seen to add, with room
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # markers whose segment states the shape


def check_codestream(stream: bytes, rows: int, columns: int) -> None:
    """Raise `Rejected` for a codestream of another shape or without its end marker; others, as run lengths, pass."""
    shape = _coded_shape(stream)
    if shape is None:
        return
    if shape != (rows, columns):
        detail = f"{rows} x {columns}, but the compressed image is {shape[0]} x {shape[1]}"
        raise Rejected(Reason.undecodable, "Rows", detail)
    if END not in stream[-len(END) - PADDING :]:
        raise Rejected(Reason.truncated_pixels, "PixelData", "the compressed image has no end")


def _coded_shape(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns as stated; 0, 0 when the statement is missing, None for what is no such codestream."""
    if stream.startswith(JPEG_2000):
        right, bottom, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left
    if not stream.startswith(JPEG):
        return None
    at = len(JPEG)
    while stream[at : at + 1] == b"\xff" and at + 9 <= len(stream):
        if stream[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        if stream[at + 1] in FRAMES:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return 0, 0
