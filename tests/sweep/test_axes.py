"""What differs between the jobs of a sweep, and what a job is called after."""

from __future__ import annotations

import pytest

from pipeline.sweep.axes import Axis, find_axes, name_job


def test_what_varies_is_an_axis_in_the_order_of_the_command_line():
    jobs = [
        [f"sampler.steps={steps}", "sampler.cfg=2.0", f"lora.strength_model={lora}", f"seed={seed}"]
        for steps in (4, 8)
        for lora in (0.5, 1.0)
        for seed in (3, 1)
    ]
    axes = find_axes(jobs)
    assert axes == (
        Axis("sampler.steps", "steps", ("4", "8")),
        Axis("lora.strength_model", "lora", ("0.5", "1.0")),
        Axis("seed", "seed", ("3", "1")),
    )
    assert name_job(jobs[3], axes) == "steps=4 lora=1.0 seed=1"


def test_two_axes_of_one_short_name_keep_their_paths():
    jobs = [["first.steps=1", "second.steps=2"], ["first.steps=3", "second.steps=4"]]
    assert [axis.label for axis in find_axes(jobs)] == ["first.steps", "second.steps"]


def test_a_switch_of_the_program_goes_by_its_node():
    assert find_axes([["lora._bypass_=true"], ["lora._bypass_=false"]])[0].label == "lora"


@pytest.mark.parametrize("written", [("true", "false"), ("True", "False")])  # by the launcher, by Hydra's sweeper
def test_a_bypassed_node_is_off(written):
    jobs = [[f"lora._bypass_={one}"] for one in written]
    (axis,) = find_axes(jobs)
    assert [name_job(job, [axis]) for job in jobs] == ["lora=off", "lora=on"]
    assert axis.values == written  # as they are written in overrides
    assert axis.word("choice(true,false)") == "choice(off,on)"


def test_a_bypass_that_goes_by_its_whole_path_reads_as_it_is_written():
    jobs = [["lora=demo", "lora._bypass_=true"], ["lora=other", "lora._bypass_=false"]]
    assert name_job(jobs[0], find_axes(jobs)) == "lora=demo lora._bypass_=true"


def test_true_and_false_of_other_settings_stay():
    jobs = [["sampler.denoise=true"], ["sampler.denoise=false"]]
    assert name_job(jobs[0], find_axes(jobs)) == "denoise=true"


@pytest.mark.parametrize(
    ("path", "label"), [("run.outputs", "outputs"), ("tracking.uri", "uri"), ("tracking", "tracking")]
)
def test_a_setting_goes_by_its_own_name_and_not_by_that_of_its_section(path, label):
    assert find_axes([[f"{path}=a"], [f"{path}=b"]])[0].label == label


def test_groups_additions_and_deletions_are_axes_too():
    jobs = [["lora=demo", "+auraflow.extra=1"], ["lora=other", "+auraflow.extra=2"]]
    assert [axis.path for axis in find_axes(jobs)] == ["lora", "auraflow.extra"]


def test_hydras_own_settings_are_no_axes():
    assert find_axes([["hydra.verbose=true"], ["hydra.verbose=false"]]) == ()
    assert find_axes([["seed=1"]]) == ()


@pytest.mark.parametrize("written", ["a red star", r"a\ red\ star", "'a red star'", '"a red star"'])
def test_a_text_is_named_as_a_person_reads_it(written):
    jobs = [[f"positive.text={written}"], ["positive.text=star"]]
    assert find_axes(jobs)[0].values == ("a red star", "star")
    assert name_job(jobs[0], find_axes(jobs)) == "text=a red star"


def test_a_setting_that_is_swept_is_an_axis_even_if_all_jobs_agree_so_far():
    jobs = [["sampler.cfg=2.0", "seed=1"]]
    assert [axis.path for axis in find_axes(jobs, {"sampler.cfg"})] == ["sampler.cfg"]
