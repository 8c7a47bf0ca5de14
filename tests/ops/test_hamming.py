"""Search and self-join against brute force, for every variant, thread count and plan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import hamming as reference

from hpcscale import ops

THREADS = (1, 2, 3)


def near(random: np.random.Generator, count: int, words: int, most: int = 40) -> np.ndarray:
    """Codes up to `most` bits from one of three centres: pairs on both sides of any radius."""
    centres = np.random.default_rng(0).integers(0, 2**64, (3, words), np.uint64)
    bits = np.argsort(random.random((count, 64 * words)), axis=1) < random.integers(0, most + 1, (count, 1))
    flips = np.packbits(bits, axis=1).view(np.uint64)
    return centres[random.integers(0, 3, count)] ^ flips


@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("variant", ops.hamming_variants())
def test_every_variant_equals_brute_force(variant: str, words: int) -> None:
    random = np.random.default_rng(1)
    radius = 31 if words == 4 else 10
    for na, nb in [(0, 1), (1, 0), (1, 1), (63, 65), (64, 63), (65, 64), (300, 170)]:
        a, b = near(random, na, words), near(random, nb, words)
        two, one = reference.search(a, b, radius), reference.self_join(a, radius)
        for chunks in (0, 16) if words == 4 else (0, 6):
            for threads in THREADS:
                how = {"threads": threads, "chunks": chunks, "variant": variant}
                np.testing.assert_array_equal(ops.search(a, b, radius, **how), two)
                np.testing.assert_array_equal(ops.self_join(a, radius, **how), one)


@pytest.mark.parametrize("radius", [0, 33, 34, 61, 62, 110, 255, 256, 300])
@pytest.mark.parametrize("variant", ops.hamming_variants())
def test_every_variant_at_every_size_of_radius(variant: str, radius: int) -> None:
    """Small, middle and large radii have kernels of their own, which decide by 3, 5 and all of 8 words. Bits
    differ anywhere, and also only in the words that a kernel looks at last."""
    random = np.random.default_rng(radius)
    a, b = near(random, 75, 4, 140), near(random, 66, 4, 140)
    late = random.integers(0, 2**64, (40, 4), np.uint64)
    late[:, :2] = 0  # 128 bits alike
    for one, other in ((a, b), (late, late[7:]), (late[:, ::-1].copy(), late[:, ::-1].copy())):
        for threads in THREADS:
            how = {"threads": threads, "chunks": 0, "variant": variant}
            expected = reference.search(one, other, radius)
            np.testing.assert_array_equal(ops.search(one, other, radius, **how), expected)
            alone = reference.self_join(one, radius)
            np.testing.assert_array_equal(ops.self_join(one, radius, **how), alone)


@pytest.mark.parametrize("variant", ops.hamming_variants())
@pytest.mark.parametrize("radius", [0, 31, 32, 63, 64, 70])
def test_every_variant_at_every_radius_of_64_bits(variant: str, radius: int) -> None:
    random = np.random.default_rng(radius)
    a, b = near(random, 75, 1, 64), random.integers(0, 2**64, (66, 1), np.uint64)
    how = {"chunks": 0, "variant": variant}
    np.testing.assert_array_equal(ops.search(a, b, radius, **how), reference.search(a, b, radius))
    np.testing.assert_array_equal(ops.self_join(a, radius, **how), reference.self_join(a, radius))


def test_beyond_a_million_codes() -> None:
    """A scan takes the second set in blocks of 2^20; a set with itself is hashed. Pairs lie before, across
    and behind that number."""
    block = 2**20
    random = np.random.default_rng(6)
    many = random.integers(0, 2**64, (block + 500, 1), np.uint64)
    few = many[[5, block - 1, block, block + 499]].copy()
    few[2] = ~few[2]
    few[3] ^= np.uint64(3)
    wanted = [[0, 5, 0], [1, block - 1, 0], [3, block + 499, 2]]
    assert ops.search(few, many, 2, threads=2, chunks=0).tolist() == wanted
    wanted = [[17, 900, 1], [800, block + 20, 2], [block - 1, block, 0], [block + 3, block + 499, 2]]
    for i, j, distance in wanted:
        many[j] = many[i] ^ np.uint64(2**distance - 1 << 30)
    assert ops.plan(many, None, 2) > 0
    assert ops.self_join(many, 2, threads=2).tolist() == wanted
    swapped = ops.search(many, few, 2, threads=2, chunks=3).tolist()
    assert swapped == [[5, 0, 0], [block - 1, 1, 0], [block, 1, 0]]


def test_the_planner_scans_where_hashing_does_not_pay() -> None:
    codes = np.random.default_rng(5).integers(0, 2**64, (200_000, 4), np.uint64)
    assert ops.plan(codes, None, 31) > 0
    assert ops.plan(codes, codes[:100_000], 31) > 0
    assert ops.plan(codes[:1000], None, 31) == 0  # a scan takes no time
    assert ops.plan(codes, None, 100) == 0  # every bucket neighbours every other
    assert ops.plan(np.ones_like(codes), None, 31) == 0  # one bucket


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 4]), st.integers(0, 90), st.integers(0, 90), st.integers(0, 70), st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_every_plan_equals_brute_force(
    words: int, na: int, nb: int, radius: int, chunks: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    a, b = near(random, na, words), near(random, nb, words)
    chunks = min(chunks, radius + 1) if radius < 40 else 0
    if chunks and 64 * words / chunks > 12 and (radius + 1) / chunks > 4:
        chunks = 0  # millions of neighbours
    np.testing.assert_array_equal(ops.search(a, b, radius, chunks=chunks), reference.search(a, b, radius))
    np.testing.assert_array_equal(ops.self_join(a, radius, chunks=chunks), reference.self_join(a, radius))


@pytest.mark.parametrize("chunks", [0, 13, 16, 31, 32])
def test_the_radius_is_inclusive(chunks: int) -> None:
    """Codes exactly 31 and 32 bits from the first, the differing bits spread over the chunks in many ways."""
    random = np.random.default_rng(2)
    codes = np.repeat(random.integers(0, 2**64, (1, 4), np.uint64), 401, axis=0)
    for k in range(400):
        spread = np.arange(31 + k % 2) * 8 % 256 + k % 8
        chosen = spread if k < 100 else random.choice(256, 31 + k % 2, replace=False)
        np.bitwise_xor.at(codes[k + 1], chosen // 64, np.uint64(1) << (chosen % 64).astype(np.uint64))
    pairs = ops.self_join(codes, 31, chunks=chunks, threads=2)
    np.testing.assert_array_equal(pairs, reference.self_join(codes, 31))
    first = pairs[pairs[:, 0] == 0]
    assert first[:, 1].tolist() == list(range(1, 401, 2))
    assert set(first[:, 2]) == {31}


@pytest.mark.parametrize("chunks", [0, 16])
def test_equal_codes_pair_with_all(chunks: int) -> None:
    codes = np.full((700, 4), 0x0123456789ABCDEF, np.uint64)
    pairs = ops.self_join(codes, 31, threads=2, chunks=chunks)
    assert len(pairs) == 700 * 699 // 2
    assert len(np.unique(pairs[:, :2], axis=0)) == len(pairs)
    assert ops.search(codes, codes[:3], 0).tolist() == [[i, j, 0] for i in range(700) for j in range(3)]


def test_self_join_is_search_with_itself() -> None:
    codes = near(np.random.default_rng(3), 400, 4)
    both = ops.search(codes, codes, 31)
    np.testing.assert_array_equal(ops.self_join(codes, 31), both[both[:, 0] < both[:, 1]])


def test_planned_search_of_many_codes_finds_what_was_planted() -> None:
    """Large enough that the planner hashes; skewed bits, and a bucket of 300 equal codes among them."""
    random = np.random.default_rng(4)
    bits = random.random((60_000, 256)) < random.uniform(0.3, 0.7, 256)
    codes = np.packbits(bits, axis=1).view(np.uint64)
    codes[:300] = codes[0]
    flips = np.argsort(random.random((500, 256)), axis=1) < random.integers(0, 32, (500, 1))
    codes[-500:] = codes[3000:3500] ^ np.packbits(flips, axis=1).view(np.uint64)
    assert ops.plan(codes, None, 31) > 0
    pairs = ops.self_join(codes, 31, threads=2)
    np.testing.assert_array_equal(pairs, ops.self_join(codes, 31, threads=2, chunks=0))
    found = {(i, j) for i, j, _ in pairs.tolist()}
    assert {(3000 + k, 59_500 + k) for k in range(500)} <= found
    assert len(pairs) >= 300 * 299 // 2 + 500
    part = codes[-1000:]
    np.testing.assert_array_equal(
        ops.search(part, codes, 31, chunks=16, threads=2), ops.search(part, codes, 31, chunks=0)
    )


def test_pairs_arrive_in_batches_and_progress_reaches_the_end() -> None:
    codes = np.zeros((500, 4), np.uint64)
    batches: list[np.ndarray] = []
    shares: list[float] = []
    out = ops.self_join(codes, 3, threads=3, found=batches.append, progress=shares.append)
    assert out.shape == (0, 3)
    pairs = np.concatenate(batches)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    np.testing.assert_array_equal(pairs, reference.self_join(codes, 3))
    ops.self_join(codes, 3, progress=shares.append)
    assert shares[-1] == 1.0


def test_a_flood_of_pairs_arrives_in_parts() -> None:
    sizes: list[int] = []
    ops.self_join(np.zeros((2600, 4), np.uint64), 0, found=lambda pairs: sizes.append(len(pairs)))
    assert sum(sizes) == 2600 * 2599 // 2
    assert max(sizes) <= 2**14 + 512 * 2048


@pytest.mark.parametrize("threads", THREADS)
def test_an_exception_of_the_receiver_stops_the_search(threads: int) -> None:
    def stop(_: object) -> None:
        raise RuntimeError("enough")

    codes = np.zeros((3000, 4), np.uint64)
    with pytest.raises(RuntimeError, match="enough"):
        ops.self_join(codes, 3, threads=threads, found=stop)
    with pytest.raises(RuntimeError, match="enough"):
        ops.self_join(codes, 3, threads=threads, progress=stop)


def test_wrong_arrays_are_refused() -> None:
    codes = np.zeros((6, 4), np.uint64)
    for bad in (codes.astype(np.int64), codes[:, ::2], codes[0], codes[::2]):
        with pytest.raises(TypeError):
            ops.self_join(bad, 3)
    with pytest.raises(ValueError, match="1 or 4"):
        ops.self_join(codes[:, :2].copy(), 3)
    with pytest.raises(ValueError, match="the same on both sides"):
        ops.search(codes, codes[:, :1].copy(), 3)
    for wrong in ({"radius": -1}, {"threads": 0}, {"variant": "quantum"}, {"chunks": 9}):
        with pytest.raises(ValueError, match="search"):
            ops.self_join(codes, **{"radius": 3, **wrong})
