# shellcheck shell=bash
# What the job scripts share:  begin FOLDER;  step COMMAND...;  finish
#
# begin opens an attempt of the job, step runs `hpcscale COMMAND` in the image (once for each task of the job), finish
# says how the attempt ended and requeues the job where that helps. `hpcscale submit` copies this file into the scripts
# that it submits; by hand they read it from the folder they lie in. Facts of the site come in variables:
#
#   HPCSCALE_IMAGE         the image file; the only one that is needed
#   HPCSCALE_IMAGE_SHA256  its digest                                       [the one in HPCSCALE_IMAGE.json]
#   HPCSCALE_APPTAINER     the program                                      [apptainer]
#   HPCSCALE_BINDS         what the image sees beside the working folder and FOLDER, a line each, as for `apptainer --bind`
#   HPCSCALE_PASS          names of more variables to pass into the image
#   HPCSCALE_RETRIES       requeue after so many failures, then give up     [5]
#   HPCSCALE_INTERFACE     network interface between the ranks              [found by the route]
#   HPCSCALE_LAUNCHER      mpi, and HPCSCALE_MPI (for srun --mpi), where Horovod shall start by PMIx
#
# FOLDER/jobs/ then holds, beside JOB.log and JOB.attempts.jsonl, a folder JOB.K for attempt K:
#   stop       the job was asked to end; ranks look for it between two steps, save, and end with code 75
#   exit.CODE  "RANK NODE" of every rank that ended by itself with a code other than 0
set -uo pipefail

say() { printf 'hpcscale: %s\n' "$*"; }

begin() {
    cd -P . || exit  # one name for the working folder, the one that `submit` saw
    case $1 in /*) folder=$1 ;; *) folder=$PWD/$1 ;; esac
    # The id of one array task; with the bare SLURM_JOB_ID of the last one, Slurm would requeue the whole array.
    job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
    attempt=${SLURM_RESTART_COUNT:-0}
    attempts=$folder/jobs/$job.attempts.jsonl
    export HPCSCALE_ATTEMPT=$folder/jobs/$job.$attempt
    mkdir -p -- "$HPCSCALE_ATTEMPT" || exit 1
    exec >>"$folder/jobs/$job.log" 2>&1
    trap 'caught=1; : >"$HPCSCALE_ATTEMPT/stop"' USR1 TERM
    say "attempt $attempt of job $job on $SLURM_JOB_NODELIST, $(date +'%F %T')"

    export SLURM_JOB_END_TIME=${SLURM_JOB_END_TIME:-$(end_time)}
    touch -- "$attempts"
    lost
    if [ "$(failures "$attempt")" -gt "${HPCSCALE_RETRIES:=5}" ]; then  # nodes lost again and again
        say "given up after $(failures "$attempt") failures: $attempts"
        exit 1
    fi
    before=$(checkpoint)
    record begin "$attempt" "\"nodes\":\"$SLURM_JOB_NODELIST\""
    check_image
    # A kill that a node was slow to confirm Slurm sends again, a minute later, to the step of that number, in whatever
    # attempt. So the numbers of this attempt's steps are not those of the one before.
    for _ in $(seq $((attempt % 3))); do srun --nodes=1 --ntasks=1 --mpi=none true 2>/dev/null; done
}

step() {
    local srun=(srun --kill-on-bad-exit=1 --distribution=block --export=ALL --mpi="${HPCSCALE_MPI:-none}")
    local run=("${HPCSCALE_APPTAINER:-apptainer}" exec --cleanenv --no-eval --no-mount 'home,cwd' --pwd "$PWD") bind
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || srun+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")  # not inherited since 22.05
    [ "$SLURM_TASKS_PER_NODE" = 1 ] || srun+=(--label)
    [ -z "${SLURM_GPUS_ON_NODE:-}" ] || run+=(--nv)
    run+=(--mount "$(mount_of "$PWD")")
    case $folder in "$PWD"/*) ;; *) run+=(--mount "$(mount_of "$folder")") ;; esac
    while IFS= read -r bind; do [ -z "$bind" ] || run+=(--bind "$bind"); done <<<"${HPCSCALE_BINDS:-}"

    "${srun[@]}" bash -c "$(declare -f rank)"$'\nrank "$@"' rank "${run[@]}" "$HPCSCALE_IMAGE" hpcscale "$@" &
    caught=1
    while [ "$caught" = 1 ]; do  # a signal ends `wait` before its time
        caught=0
        wait $!
        code=$?
    done
    return "$code"
}

# shellcheck disable=SC2317  # srun calls it
rank() {  # on every node, for each task: the container, with nothing of the environment but what is named here
    local name code
    trap '' TERM USR1  # of Slurm's signals the batch shell makes a flag; who ignores them hands that on
    unset "${!APPTAINERENV_@}" "${!SINGULARITYENV_@}"
    for name in SLURM_{PROCID,LOCALID,NODEID,NTASKS,JOB_ID,STEP_ID,RESTART_COUNT,ARRAY_JOB_ID,ARRAY_TASK_ID,JOB_END_TIME} \
        SLURM_STEP_{NUM_TASKS,TASKS_PER_NODE,NODELIST} SLURMD_NODENAME CUDA_VISIBLE_DEVICES OMP_NUM_THREADS \
        HPCSCALE_{ATTEMPT,INTERFACE,LAUNCHER,MEET_SECONDS} "${!NCCL_@}" ${HPCSCALE_PASS:-}; do
        [ -z "${!name+set}" ] || export "APPTAINERENV_$name=${!name}"
    done
    export APPTAINERENV_PYTHONNOUSERSITE=1
    "$@"
    code=$?
    [ "$code" = 0 ] || echo "$SLURM_PROCID $SLURMD_NODENAME" >>"$HPCSCALE_ATTEMPT/exit.$code"
    [ "$code" = 75 ] && exit 0  # on request: srun must not kill the ranks that are still saving
    exit "$code"
}

finish() {  # by what the ranks left: the code of srun is only the highest of all
    local verdict=retry suspects=() file
    [ "$code" != 0 ] || verdict='done'
    for file in "$HPCSCALE_ATTEMPT"/exit.*; do
        case ${file##*.} in
            '*' | 143) ;;  # there is none; ended by srun because of another
            75) [ "$verdict" = retry ] || verdict=stopped ;;
            76 | 77) verdict=retry ;;  # another rank was lost; all are stuck when one is
            70 | 12[89] | 1[3-9]? | 2??) verdict=retry suspects+=("$file") ;;  # an unexpected error; killed
            *) verdict=failed code=${file##*.} && break ;;  # an error that would come again
        esac
    done
    end "$verdict" "${suspects[@]}"
}

end() {  # VERDICT [FILE...]: record it, requeue or not, and leave with the exit code of the job
    local free='' blamed=''
    case $1 in
        stopped) code=75 && [ "$(checkpoint)" = "$before" ] || free=,\"free\":true ;;
        retry) blamed=$(blame "${@:2}") ;;
    esac
    record end "$attempt" "\"code\":$code,\"verdict\":\"$1\"$free${blamed:+,\"blamed\":\"$blamed\"}"
    say "attempt $attempt of job $job: $1, exit code $code"
    case $1 in stopped | retry) requeue ;; esac
    exit "$code"
}

requeue() {
    local state bad failed
    failed=$(failures $((attempt + 1)))
    if [ "$failed" -gt "$HPCSCALE_RETRIES" ]; then
        say "not requeued: $failed failures, allowed are $HPCSCALE_RETRIES (HPCSCALE_RETRIES)"
        return
    fi
    trap '' TERM USR1  # requeue makes Slurm end this script; the job can be changed only when it waits again
    # A job that has come to its time limit is ours to requeue. Any other that Slurm is ending was cancelled (and would
    # be requeued all the same), or has lost a node and is requeued already.
    state=$(squeue --noheader --jobs="$job" --states=all --format='%T %r')
    case $state in
        '' | RUNNING* | *TimeLimit) scontrol requeue "$job" || { sleep 10 && scontrol requeue "$job"; } ;;
        *) say "not requeued from here: Slurm has the job as $state" ;;
    esac
    bad=$(grep -o '"blamed":"[^"]*"' "$attempts" | cut -d'"' -f4 | tr , '\n' | sort | uniq -d | paste -sd,)
    [ -z "$bad" ] || scontrol update JobId="$job" ExcNodeList="$bad"
}

# ---- records ----

record() {  # EVENT ATTEMPT MEMBERS
    printf '{"event":"%s","attempt":%d,%s,"time":%d}\n' "$1" "$2" "$3" "$(date +%s)" >>"$attempts"
}

failures() {  # ATTEMPTS: how many of them were not for free, as stopping on request behind a new checkpoint is
    local free
    free=$(grep -cs '"free":true' "$attempts")
    echo $(($1 - ${free:-0}))
}

lost() {  # end the record of an attempt whose script ended with its node
    local last nodes number blamed
    last=$(tail -n 1 "$attempts")
    case $last in *'"event":"begin"'*) ;; *) return ;; esac
    number=${last#*'"attempt":'} nodes=${last#*'"nodes":"'}
    blamed=$(down "${nodes%%\"*}")
    record end "${number%%,*}" "\"code\":null,\"verdict\":\"lost\"${blamed:+,\"blamed\":\"$blamed\"}"
}

blame() {  # [FILE...]: the node that these exit files name, if it is one; without files, nodes that are down
    [ $# -gt 0 ] || { down "$SLURM_JOB_NODELIST"; return; }
    cut -d' ' -f2 -- "$@" | sort -u | paste -sd, | grep -v ,
}

down() { sinfo --noheader --Node --nodes="$1" --states=down --format=%N | sort -u | paste -sd,; }

checkpoint() {  # name of the newest
    local files=("$folder"/checkpoints/step-*.json)
    printf %s "${files[-1]##*/}"
}

end_time() {  # of the time limit, Unix time; Slurm says it only since 23.02
    local text
    text=$(squeue --noheader --jobs="$job" --format=%e) && date -d "$text" +%s 2>/dev/null
}

# ---- the image ----

check_image() {
    local wanted found
    wanted=${HPCSCALE_IMAGE_SHA256:-$(sed -n 's/.*"sha256": *"\([0-9a-f]*\)".*/\1/p' "$HPCSCALE_IMAGE.json")}
    found=$(sha256sum <"$HPCSCALE_IMAGE")
    [ "${found%% *}" != "$wanted" ] || return 0
    say "$HPCSCALE_IMAGE is not the image that was recorded: SHA-256 is ${found%% *}, must be ${wanted:-known}"
    code=1
    end failed
}

mount_of() {  # for `apptainer --mount`, which reads CSV: any path, where --bind would stop at a colon or a comma
    local path=${1//\"/\"\"}
    printf 'type=bind,"source=%s","destination=%s"' "$path" "$path"
}
