"""Compares every cast of kernels/base/dtype.h with ml_dtypes, an implementation that is not ours.

usage: numbers_ml_dtypes.py NUMBERS_DUMP

Decoding: all codes of all formats. Encoding: all 2^16 BF16 patterns, every midpoint between neighbouring codes with the
singles beside it, and four million random singles. Where the two libraries differ on purpose, the expectation says so:
  e4m3, e5m2  ours saturate, infinities included; ml_dtypes overflows to NaN (e4m3fn) or infinity (e5m2)
  e8m0        ours rounds up, since a scale must cover its tile; ml_dtypes rounds to nearest
"""
import subprocess
import sys

try:
    import ml_dtypes
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

FORMATS = {
    "e4m3": (ml_dtypes.float8_e4m3fn, np.uint8, 448.0),
    "e5m2": (ml_dtypes.float8_e5m2, np.uint8, 57344.0),
    "e8m0": (ml_dtypes.float8_e8m0fnu, np.uint8, 2.0**127),
    "bf16": (ml_dtypes.bfloat16, np.uint16, None),
}


def ours(program, direction, data, dtype):
    done = subprocess.run([program, direction], input=data.tobytes(), stdout=subprocess.PIPE, check=True)
    result = np.frombuffer(done.stdout, dtype=dtype)
    assert result.size == data.size, (result.size, data.size)
    return result


def same(name, actual, expected, inputs):
    wrong = np.flatnonzero(actual != expected)
    if wrong.size:
        i = wrong[0]
        print(f"{name}: {wrong.size} of {actual.size} differ, first {inputs[i]!r}: {actual[i]} is not {expected[i]}")
        sys.exit(1)
    print(f"{name}: {actual.size} equal")


def canonical(values):
    """Bits of singles, with one pattern for every NaN."""
    bits = values.astype(np.float32).view(np.uint32).copy()
    bits[np.isnan(values)] = 0x7FC00000
    return bits


def check_decoding(program):
    for name, (dtype, code, _) in FORMATS.items():
        codes = np.arange(2 ** (8 * np.dtype(code).itemsize), dtype=np.uint32).astype(code)
        expected = codes.view(dtype).astype(np.float32)
        actual = ours(program, "decode_" + name, codes, np.float32)
        same(f"decode {name}", canonical(actual), canonical(expected), codes)


def patterns():
    every_bf16 = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    parts = [every_bf16]
    for dtype, code, _ in FORMATS.values():
        codes = np.arange(2 ** (8 * np.dtype(code).itemsize), dtype=np.uint32).astype(code)
        values = codes.view(dtype).astype(np.float64)
        values = np.unique(values[np.isfinite(values)])
        middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
        beside = values.astype(np.float32)
        for v in (middles, beside):
            parts += [v, np.nextafter(v, np.float32(np.inf)), np.nextafter(v, np.float32(-np.inf))]
    random = np.random.Generator(np.random.Philox(5))
    parts.append(random.integers(0, 2**32, 2 << 20, dtype=np.uint32).view(np.float32))
    spread = random.normal(size=2 << 20) * np.exp2(random.uniform(-20, 18, size=2 << 20))
    parts.append(spread.astype(np.float32))
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])


def expected_codes(name, values):
    dtype, code, largest = FORMATS[name]
    if name == "e8m0":  # the least power of two that is not below a positive finite value
        result = np.full(values.shape, 255, dtype=np.uint8)
        fits = (values <= np.float32(largest)) & ~np.signbit(values)
        mantissa, exponent = np.frexp(values[fits].astype(np.float64))
        power = np.where(mantissa == 0.5, exponent - 1, exponent)
        power = np.where(values[fits] == 0, -127, power)
        result[fits] = np.clip(power + 127, 0, 254).astype(np.uint8)
        return result
    if largest is None:
        return values.astype(dtype).view(code)
    clipped = np.clip(values, np.float32(-largest), np.float32(largest))  # NaN stays NaN
    return clipped.astype(dtype).view(code)


def check_encoding(program):
    with np.errstate(all="ignore"):
        values = patterns()
        nan = np.isnan(values)
        for name, (dtype, code, _) in FORMATS.items():
            actual = ours(program, name, values, code)
            same(f"encode {name}", actual[~nan], expected_codes(name, values[~nan]), values[~nan])
            assert np.isnan(actual[nan].view(dtype).astype(np.float32)).all(), f"{name}: a NaN became a number"
            if name != "e8m0":
                signs = actual[nan] >> (8 * np.dtype(code).itemsize - 1)
                same(f"sign of NaN {name}", signs, np.signbit(values[nan]).astype(code), values[nan])


if __name__ == "__main__":
    check_decoding(sys.argv[1])
    check_encoding(sys.argv[1])
