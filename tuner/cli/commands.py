"""All commands, in the order of the help page."""

import typer

from tuner.cli import (
    adopt,
    adopt_storage,
    adoptions,
    backup,
    best,
    boundaries,
    budget_curve,
    check,
    conclusions,
    exploit,
    export,
    importing,
    launch,
    plan,
    plot,
    replay,
    report,
    run,
    score_test,
    status,
    steps,
    sweep,
    trials,
    verify,
    worker,
)


def register(app: typer.Typer) -> None:
    """Add every command to the program."""
    app.command("run")(run.run)
    app.command("plan")(plan.plan)
    app.command("sweep")(sweep.sweep)
    app.command("launch")(launch.launch)
    app.command("worker")(worker.worker)
    app.command("status")(status.status)
    app.command("trials")(trials.trials)
    app.command("best-steps")(steps.best_steps)
    app.command("boundaries")(boundaries.boundaries)
    app.command("check")(check.check)
    app.command("budget-curve")(budget_curve.budget_curve)
    app.command("conclusions")(conclusions.conclusions)
    app.command("best")(best.best)
    app.command("exploit")(exploit.exploit)
    app.command("adopt")(adopt.adopt)
    app.command("adoptions")(adoptions.adoptions)
    app.command("score-test")(score_test.score_test)
    app.command("replay")(replay.replay)
    app.command("plot")(plot.plot)
    app.add_typer(importing.importing, name="import")
    app.command("export")(export.export)
    app.command("report")(report.report)
    app.command("verify")(verify.verify)
    app.command("backup")(backup.backup)
    app.command("adopt-storage")(adopt_storage.adopt_storage)
