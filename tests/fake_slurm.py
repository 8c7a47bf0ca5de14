"""A Slurm and an Apptainer of one file, for tests of the job scripts; on PATH it plays sbatch, squeue ...

Nothing runs in the background: `sbatch` only notes a job, and Cluster.run() runs what waits, in turn, as
slurmd would run it, requeues included. Tasks of one `srun` do run side by side. The image is a bash script,
which gets what hpcscale would get; it sees the variables of a clean environment, and no other.
"""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("sbatch", "squeue", "scontrol", "sinfo", "scancel", "srun", "apptainer", "singularity", "module")
NODES = ("n1", "n2", "n3")
# The first bytes of an image of Apptainer; to bash, two comments.
SIF = b"#!/usr/bin/env run-singularity\n#SIF_MAGIC\n"


class Cluster:
    """One folder with all that the programs below know of jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self) -> dict[str, str]:
        """Make the links; what a test adds to its environment."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        for name in NAMES:
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} {name} "$@"\n')
            (programs / name).chmod(0o755)
        return {"FAKE_SLURM": str(self.folder), "PATH": f"{programs}:{os.environ['PATH']}"}

    def jobs(self) -> dict[str, dict[str, Any]]:
        files = sorted(self.folder.glob("job-*.json"), key=lambda file: file.stat().st_ino)
        jobs = [json.loads(file.read_text()) for file in files]
        return {job["id"]: job for job in sorted(jobs, key=lambda job: (int(job["raw"]), job["id"]))}

    def job(self, name: str) -> dict[str, Any]:
        return self.jobs()[name]

    def save(self, job: dict[str, Any]) -> None:
        file = self.folder / f"job-{job['id']}.json"
        file.with_suffix(".part").write_text(json.dumps(job))
        file.with_suffix(".part").rename(file)

    def run(self, most: int = 30) -> None:
        """Run waiting jobs until none waits."""
        for _ in range(most):
            waiting = [job for job in self.jobs().values() if job["state"] == "PENDING"]
            if not waiting:
                return
            self._attempt(waiting[0])
        raise AssertionError(f"still requeued after {most} attempts")

    def _attempt(self, job: dict[str, Any]) -> None:
        down = (self.folder / "down").read_text().split() if (self.folder / "down").exists() else []
        free = [node for node in NODES if node not in {*down, *job["excluded"]}]
        nodes, ranks = free[: job["nodes"]], job["ranks"]
        assert len(nodes) == job["nodes"], "not enough nodes"
        end = int(time.time()) + 600
        environment = job["environment"] | {
            "SLURM_JOB_ID": job["raw"],
            "SLURM_JOB_NODELIST": ",".join(nodes),
            "SLURM_TASKS_PER_NODE": str(ranks) if len(nodes) == 1 else f"{ranks}(x{len(nodes)})",
            "SLURM_NTASKS": str(ranks * len(nodes)),
            **({"SLURM_RESTART_COUNT": str(job["restarts"])} if job["restarts"] else {}),
            **({"SLURM_CPUS_PER_TASK": job["cpus"]} if job["cpus"] else {}),
        }
        if job["task"] is not None:
            environment |= {
                "SLURM_ARRAY_JOB_ID": job["id"].partition("_")[0],
                "SLURM_ARRAY_TASK_ID": str(job["task"]),
                "SLURM_ARRAY_TASK_COUNT": str(job["tasks"]),
            }
        # Slurm runs a copy: the script must not look for its neighbours beside $0.
        spool = self.folder / f"spool-{job['id']}"
        spool.write_text(job["script"])
        with Path(job["output"]).open("ab") as output:
            batch = subprocess.Popen(["bash", str(spool), *job["arguments"]], cwd=job["cwd"], env=environment,
                                     stdout=output, stderr=output, stdin=subprocess.DEVNULL)  # fmt: skip
            self.save(job | {"state": "RUNNING", "pid": batch.pid, "end": end})
            code = batch.wait(60)
        job = self.job(job["id"])
        if job["requeue"]:
            job |= {"state": "PENDING", "restarts": job["restarts"] + 1, "requeue": False}
        elif job["state"] == "RUNNING":
            job["state"] = "COMPLETED" if code == 0 else "FAILED"
        self.save(job | {"code": code})


def sbatch(cluster: Cluster, words: list[str]) -> None:
    words = [word for word in words if word != "--parsable"]
    given = []
    while words[0].startswith("-"):
        given.append(words.pop(0))
    script = Path(words[0]).read_text()
    options: dict[str, str] = {}
    for line in script.splitlines()[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            name, _, value = shlex.split(line.removeprefix("#SBATCH "), comments=True)[0].partition("=")
            options[name] = value
    options |= dict(word.partition("=")[::2] for word in given)
    if (cluster.folder / "banner").exists():
        print((cluster.folder / "banner").read_text())
    number = str(1 + max((int(job["raw"]) for job in cluster.jobs().values()), default=0))
    last = re.match(r"0-(\d+)", options["--array"]) if "--array" in options else None
    tasks = int(last[1]) + 1 if last else 0
    for task in range(tasks) if tasks else [None]:
        name = number if task is None else f"{number}_{task}"
        output = options.get("--output", "slurm-%j.out").replace("%%", "\0").replace("%j", number)
        output = output.replace("%A", number).replace("%a", str(task)).replace("\0", "%")
        cluster.save({
            # The last task of an array has the id of the array, as in Slurm.
            "id": name, "raw": number if task in (None, tasks - 1) else str(int(number) + 1 + (task or 0)),
            "task": task, "tasks": tasks, "script": script, "command": str(Path(words[0]).resolve()),
            "comment": options.get("--comment", "(null)"),
            "arguments": words[1:], "output": os.path.join(os.getcwd(), output), "cwd": os.getcwd(),
            "nodes": int(options.get("--nodes", 1)), "cpus": options.get("--cpus-per-task"),
            "ranks": int(options.get("--ntasks-per-node", 1)), "state": "PENDING", "reason": "None",
            "restarts": 0, "requeue": False, "partition": options.get("--partition", "batch"),
            "constraint": options.get("--constraint"), "required": options.get("--nodelist"),
            "excluded": options["--exclude"].split(",") if "--exclude" in options else [],
            "environment": dict(os.environ),
        })  # fmt: skip
    if (cluster.folder / "sbatch-then").exists():  # what becomes of it, once the job waits
        os.execv("/bin/sh", ["sh", str(cluster.folder / "sbatch-then"), number])
    print(number)


def squeue(cluster: Cluster, words: list[str]) -> None:
    options = dict(word.partition("=")[::2] for word in words)
    wanted = options["--jobs"].split(",") if "--jobs" in options else None
    jobs = [
        job
        for job in cluster.jobs().values()
        if wanted is None or {job["id"], job["id"].partition("_")[0]} & set(wanted)
    ]
    if (cluster.folder / "banner").exists():
        print((cluster.folder / "banner").read_text())
    if wanted and not jobs:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    for job in jobs:
        text = (
            options["--format"]
            .replace("%i", job["id"])
            .replace("%T", job["state"])
            .replace("%L", "1-00:10:05")
            .replace("%r", job["reason"])
            .replace("%k", job["comment"])
            .replace("%o", job["command"])
        )
        print(text.replace("%e", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(job.get("end", 0)))))


def scontrol(cluster: Cluster, words: list[str]) -> None:
    if words == ["show", "config"]:
        print("Configuration data\nMaxArraySize            = 4")
    elif words[:2] == ["show", "job"]:
        for job in cluster.jobs().values():  # the number of an array's last task is that of all
            if words[2] in (job["id"], job["raw"], job["id"].partition("_")[0]):
                print(shown(job))
    elif words[:2] == ["show", "hostnames"]:
        print(words[2].replace(",", "\n"))
    elif words[0] == "requeue" and (cluster.folder / "refused").exists():
        sys.exit(f"{(cluster.folder / 'refused').read_text()} for job {words[1]}")
    elif words[0] == "requeue":
        job = cluster.job(words[1])
        cluster.save(job | {"requeue": True, "state": "COMPLETING"})
        os.kill(job["pid"], signal.SIGTERM)
    elif words[0] == "fake-state":
        cluster.save(cluster.job(words[1]) | {"state": words[2], "reason": words[3]})
    elif words[0] == "update":
        values = dict(word.split("=") for word in words[1:])
        job = cluster.job(values["JobId"])
        assert job["requeue"], "a running job cannot be changed"
        cluster.save(job | {"excluded": values["ExcNodeList"].split(",")})
    else:
        sys.exit(f"fake scontrol: {words}")


def shown(job: dict[str, Any]) -> str:
    """As Slurm 22.05 prints it, with words of the user's that look like Slurm's."""
    array = f" ArrayJobId={job['id'].partition('_')[0]} ArrayTaskId={job['task']}"
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(job.get("end", 0)))
    return (
        f"JobId={job['raw']}{array if job['task'] is not None else ''} JobName=a ArrayTaskId=8 Restarts=9\n"
        f"   JobState={job['state']} Reason={job['reason']} Dependency=(null)\n"
        f"   Requeue=1 Restarts={job['restarts']} BatchFlag=1 Reboot=0 ExitCode=0:0\n"
        f"   StartTime={end} EndTime={end} Deadline=N/A\n"
        f"   Partition={job['partition']} AllocNode:Sid=ctl:1\n"
        f"   ReqNodeList={job['required'] or '(null)'} ExcNodeList={','.join(job['excluded']) or '(null)'}\n"
        f"   NumNodes={job['nodes']} NumCPUs=4 NumTasks={job['ranks']} CPUs/Task={job['cpus'] or 1}\n"
        f"   Features={job['constraint'] or '(null)'} DelayBoot=00:00:00\n"
        f"   Command={' '.join([job['command'], *job['arguments']])} ArrayTaskId=8\n   WorkDir=/\n"
    )


def sinfo(cluster: Cluster, words: list[str]) -> None:
    options = dict(word.partition("=")[::2] for word in words)
    down = (cluster.folder / "down").read_text().split() if (cluster.folder / "down").exists() else []
    if "--partition" in options:
        assert options["--format"] == "%N %t %f"
        features = cluster.folder / "features"
        known = json.loads(features.read_text()) if features.exists() else {}
        for node in NODES:
            print(node, "down*" if node in down else "idle", known.get(node, "(null)"))
        return
    for node in options["--nodes"].split(","):
        if node in down:
            print(node)


def scancel(cluster: Cluster, words: list[str]) -> None:
    for job in cluster.jobs().values():
        if {job["id"], job["id"].partition("_")[0]} & set(words):
            cluster.save(job | {"state": "CANCELLED"})


def srun(cluster: Cluster, words: list[str]) -> None:
    while words[0].startswith("--"):
        words.pop(0)
    nodes = os.environ["SLURM_JOB_NODELIST"].split(",")
    ranks = int(os.environ["SLURM_TASKS_PER_NODE"].partition("(")[0])
    tasks = []
    for rank in range(len(nodes) * ranks):
        place = {
            "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % ranks), "SLURM_NODEID": str(rank // ranks),
            "SLURMD_NODENAME": nodes[rank // ranks], "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": str(len(nodes) * ranks), "SLURM_STEP_NODELIST": ",".join(nodes),
        }  # fmt: skip
        tasks.append(subprocess.Popen(words, env=os.environ | place, start_new_session=True))
    codes: dict[int, int] = {}
    while len(codes) < len(tasks):
        for rank, task in enumerate(tasks):
            if rank not in codes and task.poll() is not None:
                codes[rank] = task.returncode
                if task.returncode:
                    for other in tasks:
                        if other.poll() is None:
                            os.killpg(other.pid, signal.SIGKILL)
        time.sleep(0.01)
    sys.exit(max(code if code >= 0 else 128 - code for code in codes.values()))


def apptainer(cluster: Cluster, words: list[str], prefix: str = "APPTAINERENV_") -> None:
    said = list(words)
    if (cluster.folder / "no-start").exists():
        print("FATAL: it does not start", file=sys.stderr)
        sys.exit(255)
    assert words.pop(0) == "exec"
    mounts: list[str] = []
    while words[0].startswith("--"):
        option = words.pop(0)
        if option in ("--no-mount", "--pwd", "--mount", "--bind"):
            value = words.pop(0)
            if option == "--mount":
                fields = dict(field.split("=", 1) for field in next(csv.reader([value])))
                mounts.append(fields["source"])
    inside = {
        name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)
    }
    with (cluster.folder / "apptainer.jsonl").open("a") as file:
        call = {"words": said, "mounts": mounts, "environment": inside, "outside": dict(os.environ)}
        file.write(json.dumps(call) + "\n")
    assert all(map(os.path.isdir, mounts)), mounts
    image, program, *arguments = words
    assert program == "hpcscale"
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    os.execve("/bin/bash", ["bash", image, *arguments], clean | inside)


def singularity(cluster: Cluster, words: list[str]) -> None:
    """SingularityCE: a prefix of its own, and none of Apptainer's."""
    apptainer(cluster, words, "SINGULARITYENV_")


def module(cluster: Cluster, words: list[str]) -> None:
    print("module", *words)


def seen(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """What was asked of Apptainer, in turn."""
    for line in (cluster.folder / "apptainer.jsonl").read_text().splitlines():
        yield json.loads(line)


if __name__ == "__main__":
    globals()[sys.argv[1]](Cluster(Path(os.environ["FAKE_SLURM"])), sys.argv[2:])
