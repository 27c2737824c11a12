"""Where a stage carries all weights, fresh seeds are fresh: each training has an order of batches of its own."""

from support.planted import SEARCH, planted, stage_session

from tuner import Round
from tuner.rounds.launch import launch_study
from tuner.rounds.prepared_round import launch_prepared, prepared_round


def test_two_trainings_of_one_point_that_carry_all_weights_are_no_copies(tmp_path):
    again = Round("The best again", promote=2)
    with stage_session(planted(tmp_path, SEARCH, again), tmp_path) as session:
        launch_prepared(session, prepared_round(session, 1))
        prepared = prepared_round(session, 2)
        assert len({trial.data_seed for trial in prepared.trials}) == len(prepared.trials) == 4
        row = launch_study(session, prepared.study, prepared.trials, budget_origin=prepared.budget.origin)
        records = session.ledger.trials(row.study_id)
    points = {record.point for record in records}
    assert len(points) == 2
    for point in points:
        values = [record.best_value for record in records if record.point == point]
        assert len(values) == len(set(values)) == 2
