"""Which hyperparameters matter most? By an evaluator of importances, which is named: others answer otherwise.

Importances say what separates the good trials from all others in the space that was searched, and nothing about another
space. `tuner.rounds.importances` computes them.
"""

from tuner.analysis.finding import Question, Verdict
from tuner.analysis.study_frames import MINIMUM_COMPLETE

MINIMUM_TRIALS = 2 * MINIMUM_COMPLETE  # [P] the good tenth of the trials is a quantile

QUESTION = Question(
    name="importance",
    sentence="Which hyperparameters matter most?",
    order=400,
    verdicts=(Verdict("known"), Verdict("inconclusive", "open", "Complete more trials, then ask again.")),
    thresholds={"minimum_trials": MINIMUM_TRIALS},
    plot="axes",
    pruned="they take no part here",
)
