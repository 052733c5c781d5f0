"""A stacking's end says what it gained, and other runs' ends say nothing of it."""

from fl_rsna.reporting.stack_scores import stack_lines


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def test_lines_of_a_stacking_and_of_another_run() -> None:
    mean = {"log_loss": 0.25, "slice": {"any": {"auroc": estimate(0.8)}}}
    apart = {"log_loss": estimate(-0.02), "auroc": {"any": estimate(0.05)}}
    stacking = {"stacker": "xgboost", "folds": [{}, {}], "mean_of_folds": mean, "against_mean_of_folds": apart}
    assert stack_lines({"stacking": stacking}, "any") == [
        "mean of 2 slice models: AUROC any 0.800 [0.700, 0.900], log loss 0.2500",
        "stacker (xgboost) against it, paired over patients: AUROC any 0.050 [-0.050, 0.150], log loss -0.020 [-0.120, 0.080]",
    ]
    assert stack_lines({}, "any") == []
