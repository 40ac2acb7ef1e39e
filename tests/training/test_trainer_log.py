from __future__ import annotations

import json

from mlip_assets.training.trainer.log import read_curve


def batch(epoch, loss):
    return json.dumps({"loss": loss, "time": 0.1, "mode": "opt", "epoch": epoch})


def evaluation(epoch, loss, head="Default"):
    return json.dumps(
        {
            "loss": loss,
            "rmse_e_per_atom": loss / 10,
            "rmse_f": loss / 2,
            "mode": "eval",
            "epoch": epoch,
            "head": head,
        }
    )


def test_read_curve_replaces_repeated_epochs_and_ignores_incomplete_line(tmp_path):
    lines = [
        evaluation(None, 9.0),
        *(batch(0, 4.0), batch(0, 2.0), evaluation(0, 2.0)),
        *(batch(1, 1.0), evaluation(1, 1.5)),
        *(batch(2, 7.0), evaluation(2, 7.0)),
        batch(3, 7.0),
        '{"loss": 3.1, "ti' + evaluation(None, 9.0),  # killed while writing
        evaluation(None, 9.0, head="pt_head"),
        *(batch(1, 0.8), evaluation(1, 0.4, head="pt_head"), evaluation(1, 1.0)),
        *(batch(5, 0.6), evaluation(5, float("nan"))),  # stage two, started early
    ]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    assert read_curve(tmp_path / "train.txt") == {
        "epoch": [0, 1, 5],
        "train_loss": [3.0, 0.8, 0.6],
        "valid_loss": [2.0, 1.0, None],
        "energy_rmse_meV_per_atom": [200.0, 100.0, None],
        "force_rmse_meV_per_A": [1000.0, 500.0, None],
        "replay_energy_rmse_meV_per_atom": [None, 40.0, None],
        "replay_force_rmse_meV_per_A": [None, 200.0, None],
    }
