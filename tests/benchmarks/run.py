"""Measures our code against a rival in one run: `run.py OUT.json [NAME ...]` writes {name: {ours, rival, ratio, unit}}.

A later run replaces the lines that it measures and keeps the others. Ratios count; seconds depend on the machine.
"""

import json
import sys
from pathlib import Path

import torch
from deployed import (
    deploy_coordinator_peak_gb_94m,
    deploy_round_94m_secured_s,
    deploy_round_overhead_s,
    deploy_round_overhead_secured_s,
)
from masking import (
    secagg_extra_peak_vs_upload,
    secagg_mask_vs_raw_cipher,
    secagg_sum_error_16bit,
    secagg_upload_ratio_8bit,
    secagg_upload_ratio_16bit,
)
from parts import cached_epoch_data_wait_share, cli_help_s, fedprox_step_vs_plain, simulation_vs_bare_loop, variants

BENCHMARKS = {
    "cli_help_s": cli_help_s,
    "fedprox_step_vs_plain": fedprox_step_vs_plain,
    "cached_epoch_data_wait_share": cached_epoch_data_wait_share,
    "simulation_vs_bare_loop": simulation_vs_bare_loop,
    "variants": variants,
    "deploy_round_overhead_s": deploy_round_overhead_s,
    "deploy_round_overhead_secured_s": deploy_round_overhead_secured_s,
    "deploy_coordinator_peak_gb_94m": deploy_coordinator_peak_gb_94m,
    "deploy_round_94m_secured_s": deploy_round_94m_secured_s,
    "secagg_mask_vs_raw_cipher": secagg_mask_vs_raw_cipher,
    "secagg_extra_peak_vs_upload": secagg_extra_peak_vs_upload,
    "secagg_sum_error_16bit": secagg_sum_error_16bit,
    "secagg_upload_ratio_16bit": secagg_upload_ratio_16bit,
    "secagg_upload_ratio_8bit": secagg_upload_ratio_8bit,
}


def main() -> None:
    """Runs the benchmarks named, or all."""
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(out.read_text()) if out.exists() else {}
    for name in sys.argv[2:] or BENCHMARKS:
        print(f"{name} ...", flush=True)
        results[name] = BENCHMARKS[name]()
        out.write_text(json.dumps(results, indent=1) + "\n")
        print(json.dumps(results[name]), flush=True)


if __name__ == "__main__":
    main()
