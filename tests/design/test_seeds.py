"""Seeds are functions of names and numbers, the same everywhere and always."""

import hashlib

from tuner.design.seeds import derived_seed


def test_a_seed_is_the_first_63_bits_of_a_sha256_of_its_parts():
    digest = hashlib.sha256(b"str:points\x1fint:7").hexdigest()
    assert derived_seed("points", 7) == int(digest[:16], 16) // 2


def test_parts_are_kept_apart_and_types_matter():
    seeds = [derived_seed(*parts) for parts in [("a", "b"), ("ab",), ("b", "a"), ("a", 1), ("a", "1"), ("a",), ()]]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
