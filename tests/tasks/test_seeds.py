from hypothesis import given
from hypothesis import strategies as st

from fedloom.tasks.seeds import seed_sequence, torch_seed


@given(st.integers(0, 2**63), st.text(max_size=20), st.integers(0, 10_000))
def test_seeds_are_repeatable_and_fit_torch(seed: int, client: str, round: int) -> None:
    first = torch_seed(seed, "train", round, client)
    assert first == torch_seed(seed, "train", round, client)
    assert 0 <= first < 2**63


def test_seeds_differ_by_seed_round_step_and_client() -> None:
    places = [
        (1, "train", 1, "a"),
        (2, "train", 1, "a"),
        (1, "select", 1, "a"),
        (1, "train", 2, "a"),
        (1, "train", 1, "b"),
    ]
    assert len({torch_seed(seed, *place) for seed, *place in places}) == len(places)


def test_known_value_does_not_change_between_releases() -> None:
    assert seed_sequence(7, "train", 3, "c").generate_state(2).tolist() == [701017718, 1937013637]
