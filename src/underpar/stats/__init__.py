"""Is it real: t-tests, intervals, power and the noise floor, over a handful of runs. Imports no torch."""

from underpar.stats.bar import BarReadings, bar_readings, nats_per_token_to_bpb
from underpar.stats.calibration import CalibratedTime, Calibration, calibrate
from underpar.stats.compare import RunComparison, compare_runs
from underpar.stats.noise import NoiseFloor, noise_floor
from underpar.stats.power import highest_passing_mean, margin_in_sds, power_one_sample, power_welch, seeds_needed
from underpar.stats.samples import StatsError, Summary, sample_sd, summarise
from underpar.stats.target import MISSED, TimedRun, TimeToTarget, by_machine, faster, time_to_target
from underpar.stats.ttest import TTest, format_p, one_sample, paired, welch

__all__ = [
    "MISSED",
    "BarReadings",
    "CalibratedTime",
    "Calibration",
    "NoiseFloor",
    "RunComparison",
    "StatsError",
    "Summary",
    "TTest",
    "TimeToTarget",
    "TimedRun",
    "bar_readings",
    "by_machine",
    "calibrate",
    "compare_runs",
    "faster",
    "format_p",
    "highest_passing_mean",
    "margin_in_sds",
    "nats_per_token_to_bpb",
    "noise_floor",
    "one_sample",
    "paired",
    "power_one_sample",
    "power_welch",
    "sample_sd",
    "seeds_needed",
    "summarise",
    "time_to_target",
    "welch",
]
