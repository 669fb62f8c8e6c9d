"""How large a picture may be: what the converter takes, training decodes; what it does not, nobody decodes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from raw_folder import Raw, entry, name
from streaming import StreamingDataset

from theworld.config.schema import ConvertConfig
from theworld.data.entries import headers
from theworld.data.samples import decode
from theworld.data.samples.decode import decode_sample
from theworld.data.shards.convert import convert
from theworld.errors import UserError

SIDE = 7072
"""Just over 50 million pixels."""


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    """One entry whose picture has more pixels than the key allows by default."""
    made = Raw(tmp_path / "raw", 0)
    made.write_json([entry(0, rle=[])])
    stream = io.BytesIO()
    Image.new("L", (SIDE, SIDE), 200).save(stream, "JPEG")
    (made.images / f"{name(0)}.jpg").write_bytes(stream.getvalue())
    return made


def test_the_converter_s_limit_is_the_one_that_training_holds_by_itself() -> None:
    assert ConvertConfig().most_pixels == decode.MOST_PIXELS < SIDE * SIDE < headers.MOST_PIXELS


@pytest.mark.parametrize("verify", ["header", "decode"])
def test_what_the_key_allows_is_written_and_decoded_and_the_rest_is_rejected(raw: Raw, verify: str) -> None:
    assert convert(raw.config(verify=verify)).written == 0
    assert raw.rejected() == {name(0): "image has too many pixels"}
    out = raw.folder / "larger"
    settings = {"verify": verify, "out": str(out), "size_limit": "4mb"}
    assert convert(raw.config(most_pixels=SIDE * SIDE - 1, **settings)).written == 0
    assert convert(raw.config(most_pixels=SIDE * SIDE, **settings)).written == 1, "the same file under another limit"
    sample = StreamingDataset(local=str(out), batch_size=1)[0]
    decoded = decode_sample(sample)
    assert decoded.no_loss is None
    assert decoded.image.size == (SIDE, SIDE)
    assert decoded.image.getpixel((9, 9)) == (200, 200, 200)
    other = decode_sample({**sample, "width": SIDE - 1})
    assert str(other.no_loss).endswith(f"{SIDE} x {SIDE} pixels, the converter saw {SIDE - 1} x {SIDE}")


@pytest.mark.parametrize("value", [0, headers.MOST_PIXELS + 1])
def test_impossible_limits_name_the_key(raw: Raw, value: int) -> None:
    with pytest.raises(UserError, match=rf"^convert\.most_pixels: {value}: expected 1 to 178,956,970"):
        convert(raw.config(most_pixels=value))
