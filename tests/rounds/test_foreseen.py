"""What a later stage cannot start from is found before the earlier one trains."""

import sqlite3

import pytest
import torch
from torch import nn

from tuner import Campaign, Round, SearchSpace, best_of, choice, log_uniform, minimize, weights_from, with_lora
from tuner.design.stages import staged
from tuner.design.workload import Workload
from tuner.errors import DeclarationError, StorageError, WorkloadError
from tuner.rounds.foreseen import check_chain
from tuner.rounds.opening import SessionOptions, opened_session

RATE = log_uniform(1e-3, 1e-1)


class Encoder(Workload):
    """Its width is searched where the space has one."""

    batch_size = 4
    select_by = minimize("validation/loss")
    last = "decoder"

    def model(self, point):
        width = point.get("width", 4)
        return nn.ModuleDict({"encoder": nn.Linear(6, width), self.last: nn.Linear(width, 2)})


class Head(Encoder):
    last = "head"


class Broken(Head):
    def model(self, point):
        raise ValueError("its file is not there yet")


def stages(start, later=Head, **space):
    source = Campaign(Encoder(), name="pre", rounds=[round_of(width=choice(4, 8))] if space else [round_of()])
    start = start(source)
    return staged(
        {"pre": source, "later": Campaign(later(), name="later", start_from=start, rounds=[round_of(**space)])}
    )


def round_of(**space):
    return Round("?", trials=4, max_train_steps=10, space=SearchSpace(learning_rate=RATE, **space))


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (lambda pre: best_of(pre, "encodr.*"), WorkloadError, "'encodr.*', and no tensor .* nearest are encoder"),
        (lambda pre: best_of(pre), WorkloadError, "head.weight is to be carried from the model of pre, which has no"),
        (lambda pre: best_of("prae"), StorageError, r"starts from 'prae'.*Did you mean best_of\(\"pre\"\)\?"),
        (lambda pre: best_of("another"), StorageError, "there are: none. Train the study file that declares it first"),
        (
            lambda pre: best_of("pre", storage="gone.sqlite"),
            StorageError,
            "in gone.sqlite, and there is no",
        ),
        (lambda pre: weights_from("gone.pt"), DeclarationError, "later starts from .*gone.pt, and there is no such"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_is_trained(start, error, message, tmp_path):
    with pytest.raises(error, match=message):
        check_chain(stages(start), str(tmp_path / "none.sqlite"))


def test_other_shapes_are_found_unless_the_earlier_stage_searches_one_that_fits(tmp_path):
    storage = str(tmp_path / "none.sqlite")
    with pytest.raises(WorkloadError, match=r"has the shape \(5, 6\) here, \([48], 6\) there"):
        check_chain(stages(lambda pre: best_of(pre, "encoder.*"), width=5), storage)
    check_chain(stages(lambda pre: best_of(pre, "encoder.*"), width=8), storage)


class Adapted(Head):
    def model(self, point):
        return with_lora(super().model(point), "*", rank=point["rank"])


def test_a_rank_that_a_layer_of_the_later_stage_cannot_have_is_found_too(tmp_path):
    storage = str(tmp_path / "none.sqlite")
    check_chain(stages(lambda pre: best_of(pre, "encoder.*"), Adapted, width=4, rank=choice(1, 2)), storage)
    with pytest.raises(WorkloadError, match="rank 3 is above 2"):
        check_chain(stages(lambda pre: best_of(pre, "encoder.*"), Adapted, width=4, rank=choice(2, 3)), storage)


def test_any_of_several_candidates_is_foreseen_by_the_one_model_of_the_earlier_stage(tmp_path):
    check_chain(stages(lambda pre: best_of(pre, "encoder.*", candidates=3)), str(tmp_path / "none.sqlite"))


def test_what_fits_or_cannot_be_told_yet_passes_and_draws_no_number_of_the_caller(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_chain(stages(lambda pre: best_of(pre, "encoder.*")), str(tmp_path / "none.sqlite"))
    check_chain(stages(lambda pre: best_of(pre, "encoder.*", candidates=3)), str(tmp_path / "none.sqlite"))
    check_chain(stages(lambda pre: best_of(pre, "encoder.*"), Broken), str(tmp_path / "none.sqlite"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dry_run_prices_what_starts_from_a_campaign_that_is_not_recorded_yet(tmp_path):
    check_chain(stages(lambda pre: best_of("another")), str(tmp_path / "none.sqlite"), dry_run=True)


def test_a_database_without_records_is_one_in_which_nothing_has_begun(tmp_path):
    """A server has its database before the first launch: stages begin there, and a dry run prices them."""
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    check_chain(stages(lambda pre: best_of(pre, "encoder.*")), str(empty))
    stage = stages(lambda pre: best_of(pre, "encoder.*"))[0]
    with opened_session(stage, SessionOptions(storage=str(empty)), dry_run=True) as session:
        assert session.ledger.campaigns() == []
    with sqlite3.connect(empty) as connection:
        assert not connection.execute("SELECT * FROM sqlite_master").fetchall()
