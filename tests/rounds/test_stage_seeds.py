"""Where a stage carries all weights, fresh seeds are fresh: each training has an order of batches of its own."""

from support.planted import SEARCH, options_in, planted

from tuner import Round
from tuner.analysis.frames import study_frames
from tuner.design.stages import Stage
from tuner.rounds.launch import launch_study
from tuner.rounds.opening import opened_session
from tuner.rounds.prepared_round import launch_prepared, prepared_round


def test_two_trainings_of_one_point_that_carry_all_weights_are_no_copies(tmp_path):
    campaign = planted(tmp_path, SEARCH, Round("The best again", promote=2))
    with opened_session(Stage(campaign.name, campaign), options_in(tmp_path)) as session:
        launch_prepared(session, prepared_round(session, 1))
        prepared = prepared_round(session, 2)
        assert len({trial.data_seed for trial in prepared.trials}) == len(prepared.trials) == 4
        launch_study(session, prepared.study, prepared.trials, budget_origin=prepared.budget.origin)
        trials = study_frames(session.ledger, session.name, "round-2").trials
    values = trials.groupby("learning_rate")["last_value"]
    assert values.nunique().tolist() == values.count().tolist() == [2, 2]
