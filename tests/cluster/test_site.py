"""Site files: every key explained, what is wrong told by an example; and where they are found."""

import os
import subprocess
from pathlib import Path

import pytest
from login_node import TRAIN, Login
from places import ROOT

from hpcscale.cluster import site
from hpcscale.config import ConfigError


def refusal(folder: Path, text: str) -> str:
    """What is said of a site file with an image and this."""
    file = folder / "site.toml"
    file.write_text('image = "/i.sif"\n' + text)
    with pytest.raises(ConfigError) as raised:
        site.load(file)
    return str(raised.value)


def test_the_example_is_a_site_with_every_key() -> None:
    file = ROOT / "slurm/sites/example.toml"
    example = site.load(file)
    assert example.model_fields_set == set(site.Site.model_fields)
    assert example.resources("array").partition == "cpu"
    assert (example.resources("train").partition, example.resources("train").qos) == ("gpu", "long")
    assert example.resources("single").ranks() == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagee = 'x'", "imagee: unknown key; known are partition, account"),
        ("partition = 'a b'", "partition: expected one word without quotes"),
        ("partition = 'a\\nb'", "found"),
        ("[train]\ncpus = 1", "train.cpus: unknown key; known are partition"),
        ("time = 'tomorrow'", "found 'tomorrow'"),
        ("directives = ['rm -rf']", "directives.0"),
        ("environment = { 'A B' = 'c' }", "environment.A B"),
        ("gpus_per_node = -1", "found -1"),
        ("x = ", "not TOML"),
    ],
)
def test_a_site_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    told = refusal(tmp_path, text)
    assert message in told
    assert str(tmp_path / "site.toml") in told


def test_where_a_site_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("HPCSCALE_SITE", raising=False)
    with pytest.raises(ConfigError, match=r"hpcscale/site\.toml"):
        site.find(None)
    (tmp_path / "hpcscale/sites").mkdir(parents=True)
    (tmp_path / "hpcscale/site.toml").touch()
    (tmp_path / "hpcscale/sites/here.toml").touch()
    assert site.find(None) == tmp_path / "hpcscale/site.toml"
    assert site.find("here") == tmp_path / "hpcscale/sites/here.toml"
    assert site.find("example") == ROOT / "slurm/sites/example.toml"
    monkeypatch.setenv("HPCSCALE_SITE", "here")
    assert site.find(None) == tmp_path / "hpcscale/sites/here.toml"
    with pytest.raises(ConfigError, match=r"looked for no\.toml"):
        site.find("./no.toml")


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ('time = "tomorrow"', "expected a time as 30 (minutes), 1:30:00, 2-12 (days-hours) or UNLIMITED"),
        ('time = "1:00:00\\n"', "expected a time as"),
        ('time = "٣"', "expected a time as"),
        ("time = 30", "string"),
        ('account = "a b"', "expected one word"),
        ('modules = ["gcc; rm"]', "expected one word"),
        ('binds = ["data"]', 'expected a bind as "/data"'),
        ('binds = ["/data:ro"]', 'expected a bind as "/data"'),
        ('binds = ["/a\\nb"]', 'expected a bind as "/data"'),
        ('pass_on = ["A-B"]', "expected the name of a variable, as HTTPS_PROXY"),
        ('apptainer = ""', "expected the name or path of a program, as apptainer"),
        ('environment = { A = "b\\u0000" }', "expected text without NUL"),
        ('directives = ["exclusive"]', "expected an option of sbatch in one word, as --exclusive"),
        ("environment = { SLURM_PROCID = '0' }", "is set by the job itself"),
        ("environment = { HPCSCALE_LAUNCHER = 'alone' }", "is set by the job itself"),
        ("environment = { APPTAINER_BIND = '/home' }", "is set by the job itself, or not read in the image"),
        ("gpus_per_node = true", "valid integer"),
        ("ranks_per_node = 2.0", "valid integer"),
        ("cpus_per_rank = 1000000000000", "less than or equal to"),
        ("nvidia = 1", "valid boolean"),
        ("backend = 'mpi'", "Input should be 'horovod' or 'torch'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_an_example(tmp_path: Path, text: str, example: str) -> None:
    told = refusal(tmp_path, text)
    assert example in told
    assert "pattern" not in told
    assert text.partition(" ")[0] in told


def test_torch_finds_its_ranks_itself(tmp_path: Path) -> None:
    assert "mpi = 'none'" in refusal(tmp_path, "backend = 'torch'\nmpi = 'pmix'")


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("30", 1800), ("5:06", 306), ("1:30:00", 5400), ("2-12", 216_000), ("1-2:03", 93_780),
        ("1-02:03:04", 93_784), ("UNLIMITED", None), ("infinite", None), ("0", None), ("0-0", None),
    ],
)  # fmt: skip
def test_time_limits(limit: str, seconds: int | None) -> None:
    assert site.Site(image=Path("/i.sif"), time=limit).time == limit
    assert site.span(limit) == seconds


@pytest.mark.parametrize(("limit", "stop"), [("1", 120), ("2", 120), ("1:59", 120), ("0-1", 3600)])
def test_a_limit_within_the_time_for_stopping_is_refused(login: Login, limit: str, stop: int) -> None:
    login.write_site(f"stop_seconds = {stop}\n")
    told = login.refused("--time", limit, *TRAIN)
    assert f"stop_seconds = {stop}" in told
    login.write_site(f'stop_seconds = {stop}\n[train]\ntime = "{limit}"\n')
    assert f"stop_seconds = {stop}" in login.refused(*TRAIN)
    login.submit("--time", "2:00:00", *TRAIN)
    login.submit("--time", "unlimited", "--after", "1", *TRAIN)


def test_a_bind_that_is_not_there_is_refused(login: Login, tmp_path: Path) -> None:
    login.write_site(f'binds = ["{tmp_path}", "/not/there:/data:ro"]\n')
    assert "site.toml: binds: /not/there:/data:ro: there is nothing here" in login.refused(*TRAIN)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", bytes(200), b"SIF_MAGIC" * 9, None])
def test_what_is_no_image_is_refused(login: Login, content: bytes | None) -> None:
    login.image.unlink()
    if content is None:
        login.image.mkdir()  # as a sandbox is
        assert "must be a file" in login.refused(*TRAIN)
        return
    login.image.write_bytes(content)
    assert f"{login.image}: is no image of Apptainer (SIF)" in login.refused(*TRAIN)


def test_a_program_that_only_the_nodes_may_have(login: Login) -> None:
    login.write_site('apptainer = "apptainer-of-nodes"\n')
    done = login.run("submit", "--site", "./site.toml", *TRAIN)
    assert (done.exit_code, done.stdout) == (0, "1\n")
    assert "no 'apptainer-of-nodes' on PATH here" in done.stderr
    login.write_site('apptainer = "apptainer-of-nodes"\nmodules = ["apptainer"]\n')
    assert login.run("submit", "--site", "./site.toml", "--dry-run", *TRAIN).stderr == ""


def test_a_newcomer_without_a_site_is_told_what_to_do(login: Login) -> None:
    told = login.run("submit", "--dry-run", *TRAIN)
    assert (told.exit_code, told.stdout) == (2, "")
    example = ROOT / "slurm/sites/example.toml"
    assert f"{example} explains every key" in told.stderr
    assert f"  cp {example} mine.toml\n" in told.stderr
    line = next(line.strip() for line in told.stderr.splitlines() if line.strip().startswith("image = "))
    Path("mine.toml").write_text(line.replace("/shared/images/hpcscale-cpu.sif", str(login.image)))
    assert login.run("submit", "--site", "./mine.toml", "--dry-run", *TRAIN).exit_code == 0


def test_variables_of_the_image_do_not_reach_the_batch_shell(login: Login) -> None:
    login.write_site('environment = { PATH = "/none", LD_PRELOAD = "/none.so", IFS = "x" }\nnvidia = true\n')
    text = login.run("submit", "--site", "./site.toml", "--dry-run", *TRAIN).stdout
    head = text.partition("# ---- slurm/lib.sh")[0] + '\nenv; echo IFS="$IFS"'
    done = subprocess.run(
        ["bash", "-c", head], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "HPCSCALE_LAUNCHER": "alone", "HPCSCALE_ENV_OLD": "1"},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert f"PATH={os.environ['PATH']}" in lines
    assert not [line for line in lines if line.startswith(("LD_PRELOAD", "IFS=x"))]
    assert {"HPCSCALE_ENV_PATH=/none", "HPCSCALE_ENV_IFS=x", "HPCSCALE_NVIDIA=1"} <= set(lines)
    assert not [line for line in lines if line.startswith(("HPCSCALE_LAUNCHER", "HPCSCALE_ENV_OLD"))]
